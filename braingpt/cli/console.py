"""The terminal of all commands: the console, plain lines and text, and errors as one line.

Tables and progress use the width of the terminal (rich counts Hangul as two cells). There is no colour under
NO_COLOR or without a terminal. With `--json` standard output carries JSON only, and everything meant for
people goes to standard error.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from braingpt.cli.streams import ReaderLeft, reader_has_left
from braingpt.utils.terminal_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment
    from rich.status import Status
    from rich.text import Text

# Kinds of errors in their JSON.
USER, FAILURE, INTERRUPTED = "user", "failure", "interrupted"
# How long a process of a distributed run waits before it exits because of an error that another process
# prints.
SILENT_EXIT_SECONDS = 5
# Whether the command that runs was called with `--json`.
_errors_as_json = False


def console(stderr: bool = False) -> "Console":
    """A rich console on standard output, or on standard error where standard output is for a result.

    Text is printed as it is: brackets are no markup and :names: no pictures. Styles are given as `style` or
    with `rich.text.Text`.
    """
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    class PlainStatus(Status):
        """A line that is redrawn, which rich would read as markup."""

        def update(self, status: Any = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().update(Text(status) if isinstance(status, str) else status, **options)

    class Screen(Console):
        """Shows what a terminal would obey, whatever is printed; only rich's own controls pass."""

        def status(self, status: Any, **options: Any) -> "Status":  # pyright: ignore[reportIncompatibleMethodOverride]
            line = Text(status) if isinstance(status, str) else status
            return PlainStatus(line, console=self, **options)

        def render_str(self, text: str, **options: Any) -> "Text":  # pyright: ignore[reportIncompatibleMethodOverride]
            # Before the width of a table's cell is measured.
            return super().render_str(visible(text), **options)

        def render(self, renderable: Any, options: Any = None) -> "Iterator[Segment]":  # pyright: ignore[reportIncompatibleMethodOverride]
            for segment in super().render(renderable, options):
                shown = segment.text if segment.control else visible(segment.text)
                yield segment if shown == segment.text else segment._replace(text=shown)

    return Screen(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_line(out: "Console", line: str, style: str | None = None) -> None:
    """Print one line as it is: a path may contain brackets and be longer than the terminal is wide."""
    out.print(line, markup=False, soft_wrap=True, style=style)


def print_text(text: str) -> None:
    """Print text on standard output at once, with `?` for what the terminal's encoding lacks.

    A file or a pipe receives the text as it is; on a terminal, what it would obey is made visible.

    Raises:
        ReaderLeft: Nobody reads it any more.
    """
    encoding = sys.stdout.encoding or "utf-8"
    text = visible(text) if sys.stdout.isatty() else text
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
    if reader_has_left():
        raise ReaderLeft


def expect_json(wanted: bool) -> None:
    """Print errors as JSON from now on, or as lines for people."""
    global _errors_as_json
    _errors_as_json = wanted


def guarded(command: Callable[[], Any]) -> int:
    """Run the command line and print an error as one line instead of a traceback.

    BRAINGPT_TRACEBACK=1 lets the exception through, for those who work on braingpt itself.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for an error of the user, 130 for an interruption.
    """
    expect_json(False)
    try:
        code = command()
        # Typer's value for Ctrl-C. A command that prints more about it raises SystemExit.
        if code == 130:
            return _print_error("interrupted", 130, INTERRUPTED)
        return code if isinstance(code, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (typer.Abort, KeyboardInterrupt):
        return _print_error("interrupted", 130, INTERRUPTED)
    except ReaderLeft:
        return 0
    except BaseException as error:
        # Libraries in Rust end with an exception that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if os.environ.get("BRAINGPT_TRACEBACK"):
            raise
        return _report(error)


def _report(error: BaseException) -> int:
    """Print what went wrong, and return the exit code."""
    from braingpt.errors import Failure, UserError, reported_elsewhere

    if reported_elsewhere(error):
        # torchrun ends all processes once one has ended, so the one that prints the error must end first.
        time.sleep(SILENT_EXIT_SECONDS)
        return 2 if isinstance(error, UserError) else 1
    # Typer's usage errors: an unknown option, a missing argument.
    if (format_message := getattr(error, "format_message", None)) is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(format_message())
            return 2
        from braingpt.cli.command import usage_message

        return _print_error(f"{usage_message(error)} (--help shows the usage)", 2, USER)
    if isinstance(error, UserError):
        return _print_error(str(error), 2, USER)
    if isinstance(error, Failure):
        return _print_error(str(error), 1, FAILURE)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            message = f"the disk is full{_at(error)}; free some space and run the command again"
            return _print_error(message, 1, FAILURE)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _print_error(f"no permission{_at(error)}", 2, USER)
        return _print_error(f"{error.strerror or error}{_at(error)}", 1, FAILURE)
    if _out_of_memory(error):
        return _print_error("not enough memory; use a smaller model, batch or context", 1, FAILURE)
    message = f"{type(error).__name__}: {error} (BRAINGPT_TRACEBACK=1 shows where)"
    return _print_error(message, 1, FAILURE)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # All out-of-memory errors of torch are RuntimeErrors, and there are none before torch is imported.
    if not isinstance(error, RuntimeError):
        return False
    from braingpt.device.device import is_out_of_memory

    return is_out_of_memory(error)


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _print_error(message: str, code: int, kind: str) -> int:
    """Print the error as one line, a JSON object with `--json`, and return the exit code."""
    line = visible(" ".join(message.split()))
    if _errors_as_json:
        error = {"kind": kind, "message": line, "exit_code": code}
        line = json.dumps({"error": error}, ensure_ascii=False)
    else:
        line = f"braingpt: {line}"
    print(line.encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)
    return code
