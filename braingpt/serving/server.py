"""A small HTTP server for one model, with the completions protocol that most clients support.

    POST /v1/completions   {"prompt": "...", "max_tokens": 64, "temperature": 0.8, "top_k": 50, "top_p": 0.9,
                            "seed": 1, "language": "ko", "stop": ["\\n"], "stream": false}
    GET  /v1/models        the model, as clients ask for it before anything else
    GET  /health           {"status": "ok", "model": "..."}

Texts are generated side by side, a token of each in turn. With `"stream": true` the answer comes as
server-sent events and ends with `data: [DONE]`. It needs the standard library only. It is meant for your own
machine: there is no authentication, but web pages of other origins are refused (`access`), and no client can
hold the server by being slow, silent, gone or many (`Limits`).
"""

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

from braingpt.model.interface import CausalModel
from braingpt.serving.access import Access
from braingpt.serving.completions import Handler
from braingpt.serving.handler import DROPPED_SECONDS, error_body
from braingpt.serving.schemas import RequestError

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Limits:
    """What one client may take."""

    # Tokens of a prompt and its answer together.
    context: int = 8192
    body_bytes: int = 1 << 22
    head_bytes: int = 1 << 16
    # Seconds to send the head of a request, to send its body, and to take a piece of the answer.
    head_seconds: float = 10
    body_seconds: float = 30
    write_seconds: float = 30
    # Open connections, and requests that generate at the same time; further ones are told to come again.
    connections: int = 64
    requests: int = 16
    retry_seconds: int = 2


class Server(ThreadingHTTPServer):
    """Serves a model until `shutdown()`.

    Args:
        address: Host and port; port 0 takes a free one, which `server_port` names.
        model: The model.
        tokenizer: Its tokenizer.
        name: The model's name in answers.
        access: The names and origins that are answered; None: those of the host alone.
        limits: What one client may take.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        model: CausalModel,
        tokenizer: "Tokenizer",
        name: str,
        access: Access | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.access, self.limits = access or Access.of(address[0]), limits or Limits()
        self.started = int(time.time())
        self.thread = ThreadPoolExecutor(1, "model")
        self.slots = threading.BoundedSemaphore(self.limits.requests)
        # Connections that are answered, and connections that were refused with the time to close them.
        self._open: set[socket.socket] = set()
        self._refused: list[tuple[float, socket.socket]] = []
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Listen, without asking DNS for the name of the host as the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, or refuse it where too many are open.

        Args:
            request: The connection.
            client_address: Its other end.
        """
        if len(self._open) < self.limits.connections:
            self._open.add(request)
            super().process_request(request, client_address)
            return
        error = RequestError("too many connections are open", 503, code="overloaded")
        body = json.dumps(error_body(error)).encode()
        head = f"HTTP/1.0 503 Service Unavailable\r\nRetry-After: {self.limits.retry_seconds}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            request.setblocking(False)
            request.send(head.encode() + body)
            request.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        # Closed at once, the client would lose the answer while it sends its request.
        self._refused.append((time.monotonic() + DROPPED_SECONDS, request))

    def service_actions(self) -> None:
        """Close the refused connections that had time to read their answer; called about twice a second."""
        now = time.monotonic()
        while self._refused and (self._refused[0][0] < now or len(self._refused) > self.limits.connections):
            self._refused.pop(0)[1].close()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection.

        Args:
            request: The connection.
        """
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up; the base class prints all other errors.

        Args:
            request: The connection.
            client_address: Its other end.
        """
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
