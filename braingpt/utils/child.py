"""Python processes that a command starts: they import nothing from the folder the user happens to be in.

`python -m` and `python -c` look for modules in the current folder first, so that a `json.py` in a folder of
downloads would run. `-P` and PYTHONSAFEPATH leave that folder out, also in the processes of `multiprocessing`
and of other libraries.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
# Runs a module with this package at the end of the path: it may be a checkout that is not installed.
_RUN = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *words: str) -> list[str]:
    """The command line that runs one of our modules in a process of its own."""
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", _RUN, root, module, *words]


def set_safe_path() -> None:
    """Let all processes that are started from now on leave the current folder out of their path."""
    os.environ[SAFE_PATH] = "1"


@contextmanager
def safe_path() -> Iterator[None]:
    """The same for the processes that are started inside the `with`, for use as a library."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
