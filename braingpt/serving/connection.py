"""One client's connection: reading within a time and a size, noticing that the client left, and a decoder
that shares the model with the decoders of other clients.
"""

import io
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from torch import Tensor

from braingpt.inference.engine import Decoder
from braingpt.inference.sampling import Sampler
from braingpt.model.interface import CausalModel

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Tokens of a prompt that are read in one turn, before other clients have theirs.
READ_AT_ONCE = 256


class ClientLeft(ConnectionError):
    """The client hung up before its answer was complete."""


class SlowClient(ConnectionError):
    """The client did not send its request in time."""


class TooLarge(ConnectionError):
    """The head of the request is too large."""


class RequestReader(io.RawIOBase):
    """What a client sends, until a deadline and up to a number of bytes.

    A timeout of the socket alone restarts with each byte, so that a client that sends a byte a minute would
    hold its connection for hours.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received = 0
        self._deadline, self._limit = 0.0, 0

    def allow(self, seconds: float, size: int) -> None:
        """Allow so much time and so many bytes from now on."""
        self._deadline, self._limit = time.monotonic() + seconds, self.received + size

    def readable(self) -> bool:
        """Whether the stream can be read: always."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read what has arrived.

        Args:
            buffer: Receives the bytes.

        Raises:
            SlowClient: The deadline has passed.
            TooLarge: The client sent more than was allowed.
        """
        left = self._deadline - time.monotonic()
        if self.received > self._limit:
            raise TooLarge
        try:
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            count = self._connection.recv_into(buffer)
        except TimeoutError:
            raise SlowClient from None
        self.received += count
        return count


def has_left(connection: socket.socket) -> bool:
    """Whether the client closed its side, which servers and proxies take as the end of its interest."""
    try:
        if hasattr(select, "poll"):
            # Only Linux can tell while unread bytes lie before the end.
            hung_up = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)
            poll = select.poll()
            poll.register(connection, select.POLLIN | hung_up)
            events = poll.poll(0)
            if not events or events[0][1] & hung_up:
                return bool(events)
        elif not select.select([connection], [], [], 0)[0]:
            return False
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def close_gently(connection: socket.socket, seconds: float, size: int) -> None:
    """Let the client read an answer that came before its request was complete.

    Bytes that arrive at a closed socket make the client lose the answer, so the rest is read and dropped.

    Args:
        connection: The client's connection, which the caller closes.
        seconds: For so long at most.
        size: So many bytes at most.
    """
    try:
        connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + seconds
        while size > 0 and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (block := connection.recv(1 << 16)):
                return
            size -= len(block)
    except OSError:
        return


class SharedDecoder(Decoder):
    """A decoder of one client. Decoders take turns, a token or a part of a prompt at a time.

    Args:
        model: The model.
        thread: The one thread that computes, first come first served; torch keeps one pool of threads then.
        left: Whether the client has left.
    """

    def __init__(self, model: CausalModel, thread: Executor, left: Callable[[], bool]) -> None:
        super().__init__(model)
        self._thread, self._left = thread, left

    def _turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Wait for a turn, and compute. Raises ClientLeft where nobody waits for the result."""
        if self._left():
            raise ClientLeft
        return self._thread.submit(work, *arguments).result()

    def read(self, ids_BL: Tensor, segments_BL: Tensor | None = None) -> None:
        """Read tokens, a part at a time.

        Args:
            ids_BL: As in `Decoder.read`.
            segments_BL: None; there is one row.

        Raises:
            ClientLeft: The client has left.
        """
        for start in range(0, ids_BL.shape[1], READ_AT_ONCE):
            self._turn(super().read, ids_BL[:, start : start + READ_AT_ONCE])

    def step(self, ids_B: Tensor) -> None:
        """As in `Decoder.step`.

        Args:
            ids_B: The token.

        Raises:
            ClientLeft: The client has left.
        """
        self._turn(super().step, ids_B)

    def sample(self, sampler: Sampler) -> Tensor:
        """As in `Decoder.sample`.

        Args:
            sampler: Chooses among the logits.

        Raises:
            ClientLeft: The client has left.
        """
        return self._turn(super().sample, sampler)
