"""A process that ends at its n-th change of the file system, for every n: what it leaves must be whole, and
the same command must work afterwards.

An audit hook sees every call of Python that opens a file for writing, renames, makes or removes; it ends the
process before the call, without any clean-up, as SIGKILL would.
"""

import contextlib
import importlib
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    return _forked(work, stop_at) is not None


def changes_of(work: Callable[[], object]) -> int:
    """The number of changes that `work` makes, in a process of its own.

    The modules that it has imported are imported here as well, so that the next process need not.
    """
    told = _forked(work, None)
    assert told is not None
    for name in told["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return told["changes"]


def sampled(count: int, points: int, seed: int = 0) -> list[int]:
    """At most `points` of the numbers below `count`, the same every time; the last ones are always there."""
    if count <= points:
        return list(range(count))
    # Most commands write their result at the end.
    last = points // 2
    drawn = random.Random(seed).sample(range(count - last), points - last)
    return [*sorted(drawn), *range(count - last, count)]


def _forked(work: Callable[[], object], stop_at: int | None) -> dict[str, Any] | None:
    """What the process told at its end; None where it was stopped."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    if not (process := os.fork()):
        code = 1
        try:
            os.close(reading)
            seen = _watch(stop_at)
            work()
            told = json.dumps({"changes": seen[0], "modules": list(sys.modules)}).encode()
            while told:
                told = told[os.write(writing, told) :]
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.__stderr__, flush=True)
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, KILLED), f"ended with {code} at change {stop_at}"
    return json.loads(told) if code == 0 else None


def _watch(stop_at: int | None) -> list[int]:
    """Count the changes of this process from now on, in the list that is returned; end it at `stop_at`."""
    seen = [0]

    def hook(event: str, given: tuple) -> None:
        writes = event == "open" and (given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes and given[0] != os.devnull) or event in CHANGES:
            if seen[0] == stop_at:
                os._exit(KILLED)
            seen[0] += 1

    sys.addaudithook(hook)
    return seen


def at_every_change(
    begin: Callable[[], object],
    work: Callable[[], object],
    check: Callable[[], object],
    points: int = 30,
    check_end: Callable[[], object] = lambda: None,
) -> int:
    """Stop `work` at its changes, `check` what is left, do it again, and check the end.

    Args:
        begin: Makes the state before.
        work: The command; it must work on whatever a stopped one left.
        check: Raises where what is there is damaged.
        points: Changes to stop at, at most; where there are more, some are drawn.
        check_end: Raises where the end of an undisturbed run, or of a repeated one, is not as it should be.

    Returns:
        The number of changes.
    """
    begin()
    count = changes_of(work)
    check()
    check_end()
    for number in sampled(count, points):
        begin()
        if not run(work, number):
            check()
            assert run(work), f"the command fails after a stop at change {number} of {count}"
        check()
        check_end()
    return count


def hidden(folder: Path) -> list[str]:
    """What is left hidden below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
