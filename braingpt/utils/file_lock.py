"""One process at a time changes a file: whoever reads it in order to write it again holds its lock meanwhile.

    with file_lock(path, note):
        memory = load(path)
        memory.teach(text)
        save(memory, path)

The lock is the hidden file `.NAME.lock` beside the file, removed by the last holder. The system frees it when
its process ends, however it ends. Writers by another name of the same file (a link) share the lock.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from braingpt.errors import UserError
from braingpt.utils.scratch import hidden_beside


@contextmanager
def file_lock(path: Path, note: Callable[[str], None] | None = None, busy: str = "") -> Iterator[None]:
    """Hold the lock of the file or folder `path`.

    Args:
        path: What is going to be changed; it need not exist, its folder must.
        note: Receives one line where another process holds the lock, before waiting for it.
        busy: The message for refusing instead of waiting.

    Raises:
        UserError: Another process holds the lock, and `busy` is given.
        OSError: The folder cannot be written.
    """
    lock = hidden_beside(Path(os.path.realpath(path)), "lock")
    handle = _take(lock, False)
    if handle is None:
        if busy:
            raise UserError(busy)
        if note is not None:
            note(f"another process is changing {path}; waiting for it")
        while handle is None:
            handle = _take(lock, True)
    try:
        yield
    finally:
        # While it is held nobody else removes it; whoever waits for it finds it gone and makes a new one.
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(handle)


def _take(lock: Path, wait: bool) -> int | None:
    """The open and locked file; None where another process holds it, or held it and has removed it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        if is_named(handle, lock):
            return handle
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(handle)
        raise
    os.close(handle)
    return _take(lock, wait)


def is_named(handle: int, lock: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        found, named = os.fstat(handle), os.stat(lock)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)
