"""Standard output and error of a command whose reader may leave, as `| head` does, or that has none.

Work continues without its words: `train | head -1` trains to the end and exits with the code of the training,
since its result is the run folder and not the lines on the terminal. Commands whose result is the text itself
(`generate`, `chat`) stop at once. Either way a reader that leaves is no failure.

Neither is a terminal that is not UTF-8: what its encoding lacks becomes `?`, and in JSON an escape.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class ReaderLeft(Exception):
    """Nobody reads the text that the command makes."""


class _Output(io.FileIO):
    """An open file; what is written after its reader has left is dropped."""

    left = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            self.left = True
            self._drop_the_rest()
            return memoryview(data).nbytes
        except OSError:
            # A full disk, which is reported once and not again when the process ends.
            self._drop_the_rest()
            raise

    def _drop_the_rest(self) -> None:
        """Lead the descriptor to nowhere, for other writers to it as well, such as a library in C."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def guard_streams() -> None:
    """Let standard output and error of this process outlive their readers, and open those that are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next file that is opened would be taken for it. Numbers are given from the lowest.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)


def reader_has_left() -> bool:
    """Whether the reader of standard output has left."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return getattr(raw, "left", False)


def _guarded(stream: TextIO | None, number: int) -> TextIO:
    """The same stream, which drops what nobody reads."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    stream.flush()
    raw = _Output(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        # Half a table and an error would be worse than a question mark. The user's own setting stays.
        errors="replace" if stream.errors in ("strict", "surrogateescape") else stream.errors,
        line_buffering=number == 2 or stream.isatty(),
        write_through=False,
    )
