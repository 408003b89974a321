"""Writes a file so that a reader finds the old file or the new one, never a part.

`write_atomically` serves every file that a user names. A link stays a link and the file behind it is
replaced; a device, a pipe or an open descriptor such as /dev/stdout is written to as it is. Whatever cannot
be written is an error of one line, before the work through `check_target` and otherwise at the write.
"""

import os
import re
import stat
import sys
from pathlib import Path

from braingpt.errors import UserError
from braingpt.utils.paths import require_utf8
from braingpt.utils.scratch import clear_rests, scratch_file

# A path that names an open file of this process: /dev/stdout, /dev/fd/3, /proc/self/fd/3.
_DESCRIPTOR = re.compile(r"(?:/proc/(?:self|\d+)/(?:task/\d+/)?fd|/dev/fd)/(\d+)")
# Links that lead from one to the next, at most; the system's own limit.
_MAX_LINKS = 40


def write_atomically(path: Path, content: str | bytes, errors: str = "strict") -> None:
    """Write a file atomically: beside its final place, flushed to the disk, then renamed.

    Args:
        path: Where the file belongs. A link is followed; a device, a pipe or an open file is written to.
        content: The whole content; text becomes UTF-8.
        errors: As in `str.encode`, for characters that UTF-8 cannot hold.

    Raises:
        UserError: `path` is a folder, or a special file that cannot be written.
        OSError: The file cannot be written, as on a full disk; the old one is unchanged.
    """
    raw = content.encode("utf-8", errors) if isinstance(content, str) else content
    check_target(path)
    if (handle := _open_special(Path(path))) is not None:
        _write_all(handle, raw)
        return
    target = Path(os.path.realpath(path))
    clear_rests(target)
    with scratch_file(target) as (temporary, file):
        # A file keeps the rights that its owner gave it.
        if target.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.replace(temporary, target)
        except OSError as error:
            # The error of a rename names the temporary file first, which the user does not know.
            raise OSError(error.errno, error.strerror, str(path)) from None
    flush_folder(target.parent)


def check_target(path: Path, name: str = "") -> None:
    """Check that a file can be written at `path`, before the work begins.

    Args:
        path: What the user named.
        name: The option, which begins the message.

    Raises:
        UserError: It cannot; the message says why.
    """
    require_utf8(path, name)
    shown = f"{name} {path}".strip()
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}; name another file") from None
    target = Path(path)
    if mode is None or stat.S_ISREG(mode):
        if _descriptor(target) is not None:
            return
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise UserError(f"{shown}: there is no folder {folder if target.is_symlink() else target.parent}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{shown}: no permission to write in {folder}")
        if mode is not None and os.path.ismount(path):
            raise UserError(f"{shown} is a mount point and cannot be replaced; name another file")
    elif stat.S_ISDIR(mode):
        raise UserError(f"{shown} is a folder; name a file")
    elif not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)) and _descriptor(target) is None:
        kind = "socket" if stat.S_ISSOCK(mode) else "block device"
        raise UserError(f"{shown} is a {kind}, which cannot hold a file; name another file")
    elif not os.access(path, os.W_OK):
        raise UserError(f"{shown}: no permission to write to it")


def flush_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        # A folder that may be written to, but not listed.
        return
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems cannot flush a folder.
        pass
    finally:
        os.close(handle)


def _open_special(path: Path) -> int | None:
    """A descriptor to write to where `path` is an open file, a device or a pipe; None for a plain file.

    An open file is duplicated and not opened again: the place to write at is then the one of its owner.
    """
    if (number := _descriptor(path)) is not None:
        # What was printed before comes first.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        return os.dup(number)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    return None if stat.S_ISREG(mode) else os.open(path, os.O_WRONLY | os.O_NOCTTY)


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that `path` names, also through links; None for another path."""
    place = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(place)
        place = os.path.join(os.path.realpath(folder), name)
        if found := _DESCRIPTOR.fullmatch(place):
            owner = place.split("/")[2]
            return int(found[1]) if owner in ("fd", "self", str(os.getpid())) else None
        if not os.path.islink(place):
            return None
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    return None


def _write_all(handle: int, raw: bytes) -> None:
    """Write to an open device or pipe, whose reader may leave before the end, and close it."""
    try:
        left = memoryview(raw)
        while left:
            left = left[os.write(handle, left) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(handle)
