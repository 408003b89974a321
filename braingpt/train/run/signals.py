"""Ctrl-C, SIGTERM or a closed terminal while training: the step is finished and a checkpoint saved; a second
Ctrl-C stops at once.

Only the main thread may set signal handlers; elsewhere training runs without them. A signal that is ignored
(nohup) stays ignored.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A stop was asked for during work that may be dropped half-way, like an evaluation."""


class StopRequest:
    """Whether a stop was asked for: `asked` becomes true at the first signal."""

    def __init__(self) -> None:
        self.asked = False
        self._droppable = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; the second one raises KeyboardInterrupt."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._droppable:
            raise Stopped

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """Inside, a signal raises `Stopped` at once."""
        if self.asked:
            raise Stopped
        self._droppable = True
        try:
            yield
        finally:
            self._droppable = False


@contextmanager
def stop_on_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP inside the `with`; they ask for a stop through `request`."""
    request = request or StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request.handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
