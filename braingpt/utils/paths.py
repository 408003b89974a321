"""Paths that a user names: as words of a command, as text that can be stored, and checked before the work.

A name that another system wrote may hold bytes that are not UTF-8. Python keeps such a byte as a lone
surrogate, which no JSON, YAML or safetensors file can hold. Files that are only read may have such names;
folders that are written may not, because their files name each other.
"""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from braingpt.errors import UserError

# Bytes outside UTF-8 are U+DC80 to U+DCFF in a path (PEP 383).
_FIRST_SURROGATE, _LAST_SURROGATE, _BYTE_OFFSET = 0xD800, 0xDFFF, 0xDC00


def is_utf8(path: str | Path) -> bool:
    """Whether a path, or any text, can be written as UTF-8."""
    return not any(_FIRST_SURROGATE <= ord(character) <= _LAST_SURROGATE for character in str(path))


def printable(path: str | Path) -> str:
    """The path as text for files and messages, with each byte that is not UTF-8 as `\\xb8`."""
    return "".join(
        f"\\x{ord(character) - _BYTE_OFFSET:02x}" if not is_utf8(character) else character
        for character in str(path)
    )


def shell_word(path: str | Path) -> str:
    """The path as one word of a command that a shell reads."""
    word = str(path)
    return shlex.quote(f"./{word}" if word.startswith("-") else word)


def shell_words(paths: Iterable[str | Path]) -> str:
    """Several paths as words of a command."""
    return " ".join(map(shell_word, paths))


def require_utf8(path: str | Path, option: str = "") -> None:
    """Check that the whole path of a folder or file to write is UTF-8.

    Args:
        path: What the user named.
        option: The option, which begins the message.

    Raises:
        UserError: It is not.
    """
    if not is_utf8(path):
        raise UserError(f"{option} {printable(path)}: the name is not UTF-8; choose another one".strip())


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def check_folder(folder: Path, option: str = "--out") -> None:
    """Check, before the work begins, that a folder can be made and written to.

    Args:
        folder: The folder; it may be missing, with folders above it.
        option: The option, which begins the message.

    Raises:
        UserError: It cannot; the message says why.
    """
    require_utf8(folder, option)
    try:
        existing = existing_folder(folder)
        if folder.is_symlink() and not folder.exists():
            raise UserError(f"{option} {folder} is a link to nothing; remove it, or name another folder")
        if not existing.is_dir():
            above = "" if existing == folder.absolute() else f": {existing}"
            raise UserError(f"{option} {folder}{above} is a file; name another folder")
        longest = os.pathconf(existing, "PC_NAME_MAX")
    except OSError as error:
        raise UserError(f"{option} {folder}: {error.strerror}; name another folder") from None
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder}: no permission to write in {existing}")
    if any(len(os.fsencode(part)) > longest for part in folder.parts):
        raise UserError(f"{option} {folder}: a name has more than {longest} bytes; name another folder")
