"""A process that ends at its n-th change of the file system, for every n: what it leaves must be whole, and
the same command must work afterwards.

An audit hook sees every call of Python that opens a file for writing, renames, makes or removes; it ends the
process before the call, without any clean-up, as SIGKILL would.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod",
    "ctypes.call_function",
}  # fmt: skip
KILLED = 99


def run(work: Callable[[], object], stop_at: int | None = None) -> bool:
    """Run `work` in a process of its own; whether it came to its end.

    Args:
        work: What to do.
        stop_at: The change before which the process ends, counted from 0; None: it ends by itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not (process := os.fork()):
        code = 1
        try:
            if stop_at is not None:
                _stop_at(stop_at)
            work()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, KILLED), f"ended with {code} at change {stop_at}"
    return code == 0


def _stop_at(number: int) -> None:
    seen = 0

    def hook(event: str, given: tuple) -> None:
        nonlocal seen
        writes = event == "open" and (given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in CHANGES:
            if seen == number:
                os._exit(KILLED)
            seen += 1

    sys.addaudithook(hook)


def at_every_change(
    begin: Callable[[], object],
    work: Callable[[], object],
    check: Callable[[], object],
    step: int = 1,
) -> int:
    """Stop `work` at every `step`-th change, `check` what is left, do it again, and check the end.

    Args:
        begin: Makes the state before.
        work: The command; it must work on whatever a stopped one left.
        check: Raises where what is there is damaged.
        step: Leaves changes out, where there are many.

    Returns:
        The number of changes.
    """
    number = 0
    while True:
        begin()
        ended = run(work, number)
        check()
        if not ended:
            assert run(work)
            check()
        else:
            return number
        number += step


def hidden(folder: Path) -> list[str]:
    """What is left hidden below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
