"""What all commands share: the console, JSON output, and errors as one line.

Tables and progress go to the terminal at its width (rich counts Hangul as two cells); colour is off under
NO_COLOR or without a terminal. With `--json` standard output carries JSON only, and everything meant for
people goes to standard error.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


# -> rich.console.Console, imported late to keep --help fast
def console(json_output: bool = False):
    """A rich console on standard output, or on standard error when standard output is for JSON."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            # `guarded` ends well with it, where rich would end with code 1
            raise BrokenPipeError

    return Screen(stderr=json_output, highlight=False)


def print_json(value: Any) -> None:
    """`value` as indented JSON on standard output, Hangul readable."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def guarded(command: Callable[[], Any]) -> int:
    """Run the command line; return its exit code: 0 well, 1 failure, 2 the user's error, 130 interrupted.

    No traceback, one line, and none where another process says it.

    BRAINGPT_TRACEBACK=1 lets the exception through, for those who work on braingpt itself.
    """
    from braingpt.errors import Failure, UserError, reported_elsewhere

    try:
        code = command()
        # what typer makes of Ctrl-C; a command that says more itself ends with SystemExit
        if code == 130:
            return _say("interrupted", 130)
        return code if isinstance(code, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted", 130)
    except BrokenPipeError:
        # the reader left; nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("BRAINGPT_TRACEBACK"):
            raise
        if reported_elsewhere(error):
            # torchrun ends all once one has ended: the one that speaks goes first
            time.sleep(5)
            return 2 if isinstance(error, UserError) else 1
        # typer's usage errors: an unknown option, a missing argument
        if hasattr(error, "format_message"):
            if type(error).__name__ == "NoArgsIsHelpError":
                print(error.format_message())
                return 2
            return _say(f"{error.format_message()} (--help shows the usage)", 2)
        if isinstance(error, UserError):
            return _say(str(error), 2)
        if isinstance(error, Failure):
            return _say(str(error), 1)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _say(f"the disk is full{_at(error)}; free some space and run the command again", 1)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _say(f"no permission{_at(error)}", 2)
        if isinstance(error, OSError):
            return _say(f"{error.strerror or error}{_at(error)}", 1)
        if _out_of_memory(error):
            return _say(
                "there is not enough memory for this; a smaller model, batch or context takes less", 1
            )
        return _say(f"{type(error).__name__}: {error} (BRAINGPT_TRACEBACK=1 shows where)", 1)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    # all of torch's are; before torch was imported none is
    if not isinstance(error, RuntimeError):
        return False
    from braingpt.device.device import is_out_of_memory

    return is_out_of_memory(error)


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _say(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"braingpt: {line}".encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)
    return code
