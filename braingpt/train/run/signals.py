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
    """Raised out of work that may be dropped half-way, like an evaluation, when a stop was asked for."""


class StopRequest:
    """`asked` turns true at the first signal."""

    def __init__(self) -> None:
        self.asked = False
        self._droppable = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
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
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP for the time of the `with`."""
    request = StopRequest()
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
