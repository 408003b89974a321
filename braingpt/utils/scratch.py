"""Temporary files and folders beside the place they will take, and the rests of processes that were killed.

    .NAME.tmp-PID       what will be NAME
    .NAME.old-PID       what was NAME, until it is deleted
    .NAME.lock          held while NAME is changed (`file_lock.py`)

The owner holds a lock on its temporary file or folder. The lock ends with the process, however it ends, so
the next process that writes NAME knows which of them are left over and removes them.
"""

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Bytes of NAME that a hidden name takes over, so that it stays below the 255 of a file system.
MAX_NAME_BYTES = 200
# Arguments of the system call that exchanges two names (Linux, renameat2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# The end of a hidden name, with the number of its process.
_KIND = r"(?:tmp|old)-(\d+)(?:-\d+)?"
_count = itertools.count()


def hidden_beside(path: Path, kind: str) -> Path:
    """`.NAME.KIND` beside `path`, short enough for every file system."""
    name = os.fsencode(path.name)[:MAX_NAME_BYTES]
    return path.with_name(f".{os.fsdecode(name)}.{kind}")


@contextmanager
def scratch_file(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file that may be renamed to `path`; whatever is left of it at the end is removed."""
    temporary, file = _locked_file(path)
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A new folder that may be renamed to `path`; whatever is left of it at the end is removed.

    Folders above it are made where they are missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_rests(path)
    temporary, handle = _locked_folder(path)
    try:
        yield temporary
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def clear_rests(path: Path) -> None:
    """Remove what killed processes left of `path`: temporary files and folders, and former content."""
    _clear(path.parent, re.escape(hidden_beside(path, "").name))


def clear_folder(folder: Path) -> None:
    """Remove what killed processes left of anything in `folder`, which must be one of ours."""
    _clear(folder, r"\..+\.")


def is_rest(name: str) -> bool:
    """Whether a name in a folder is that of a temporary file or folder, or of a former one."""
    return re.fullmatch(r"\..+\." + _KIND, name) is not None


def _clear(folder: Path, beginning: str) -> None:
    """Remove the rests in `folder` whose names begin as the pattern `beginning` says."""
    try:
        names = os.listdir(folder)
    except OSError:
        # A folder that may be written to, but not listed.
        return
    for name in names:
        if (found := re.fullmatch(beginning + _KIND, name)) and _is_left_over(folder / name, int(found[1])):
            remove_tree(folder / name)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot, and nothing was done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def move_into_place(new: Path, path: Path) -> None:
    """Give the folder `new` the name `path`, and delete a folder that has the name.

    At any moment there is the old folder or the new one, also where the process is killed. Where the system
    cannot exchange two names, the old one is for a moment at `.NAME.old-PID`.
    """
    try:
        # An empty folder of that name is replaced in the same step.
        if not path.is_symlink():
            os.rename(new, path)
            return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if exchange(new, path):
        remove_tree(new)
        return
    former = hidden_beside(path, f"old-{os.getpid()}")
    remove_tree(former)
    os.rename(path, former)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(former, path)
        raise
    remove_tree(former)


def remove_tree(path: Path) -> None:
    """Delete a file, a link or a whole folder, as far as the rights go."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _locked_file(path: Path) -> tuple[Path, IO[bytes]]:
    """A new temporary file of `path`, open and locked."""
    while True:
        temporary = _free_name(path)
        file = open(temporary, "xb")  # noqa: SIM115  (the caller closes it)
        # Another process may have taken it for a rest before it was locked.
        if _try_lock(file.fileno()) and os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new temporary folder of `path`, and its open descriptor, which holds the lock."""
    while True:
        temporary = _free_name(path)
        temporary.mkdir()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(temporary, os.O_RDONLY)
            if _try_lock(handle) and os.fstat(handle).st_nlink:
                return temporary, handle
            os.close(handle)


def _free_name(path: Path) -> Path:
    """A temporary name of `path` that is not taken: several threads may write at the same time."""
    while True:
        temporary = hidden_beside(path, f"tmp-{os.getpid()}-{next(_count)}")
        if not os.path.lexists(temporary):
            return temporary


def _try_lock(handle: int) -> bool:
    """Take the lock of a file or folder without waiting. True also where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_left_over(path: Path, process: int) -> bool:
    """Whether the owner of a temporary file or folder is gone: its lock is free, or its process gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        # Without locks the number of the process decides.
        return not _is_alive(process)
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
