"""A tokenizer on disk: a folder with `tokenizer.json` (pattern, specials, fingerprint) and `ranks.tiktoken`
(one entry a line, in base64, with its rank, which is its id: the format tiktoken itself reads). Version 2
is for vocabularies with added entries, or with specials that do not directly follow the entries. All others
have version 1, which every braingpt reads.

Whatever is read is checked against the fingerprint in `tokenizer.json`, so a damaged file is found before a
wrong id is made.

A new folder is written beside its place and renamed. A folder that is there keeps its other files, and its
tokenizer is replaced in three steps, of which the second decides: the new ranks are written as
`.ranks.tiktoken.next`; the new description replaces the old one; the new ranks replace the old ones. A reader
takes the ranks that the description's fingerprint names, so a process that is killed at any moment leaves the
old tokenizer or the new one. Writers take turns.
"""

import base64
import binascii
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from braingpt.errors import Failure, UserError
from braingpt.tokenizer.foreign_pattern import why_not_usable
from braingpt.tokenizer.vocabulary import CONTROL, PATTERN, Vocabulary, marker_name
from braingpt.utils.atomic_write import flush_folder, write_atomically
from braingpt.utils.hashed_json import read_object
from braingpt.utils.paths import check_folder
from braingpt.utils.scratch import scratch_folder

DESCRIPTION, RANKS = "tokenizer.json", "ranks.tiktoken"
# The ranks of a tokenizer that is about to replace another.
NEXT_RANKS = ".ranks.tiktoken.next"
# The largest id of a special token; ids are 32 bits wide in tiktoken.
MAX_ID = (1 << 31) - 1
# The special token of a language.
_MARKER = re.compile(r"<\|([a-z]{2,3})\|>")
FORMAT, VERSIONS = "braingpt-tokenizer", (1, 2)


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary` into `folder`, whole or not at all; other files of the folder stay."""
    check_folder(Path(folder))
    # The folder behind a link is written, and the link stays.
    folder = Path(os.path.realpath(folder))
    ranks, description = _contents(vocabulary)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        with scratch_folder(folder) as temporary:
            write_atomically(temporary / RANKS, ranks)
            write_atomically(temporary / DESCRIPTION, description)
            try:
                os.rename(temporary, folder)
                flush_folder(folder.parent)
                return
            except OSError as error:
                # Another process has made the folder meanwhile.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    with _folder_lock(folder):
        _finish(folder)
        write_atomically(folder / NEXT_RANKS, ranks)
        write_atomically(folder / DESCRIPTION, description)
        os.replace(folder / NEXT_RANKS, folder / RANKS)
        flush_folder(folder)


def _finish(folder: Path) -> None:
    """Do the last step of a writer that was killed before it, or drop what it left."""
    if not (folder / NEXT_RANKS).exists():
        return
    with suppress(UserError, Failure):
        _read(folder, _read_description(folder), NEXT_RANKS)
        os.replace(folder / NEXT_RANKS, folder / RANKS)
        return
    (folder / NEXT_RANKS).unlink()


@contextmanager
def _folder_lock(folder: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Writers of one folder take turns, and readers may wait for them, where the file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


def _contents(vocabulary: Vocabulary) -> tuple[bytes, bytes]:
    """What the files RANKS and DESCRIPTION hold."""
    lines = [base64.b64encode(entry) + b" %d\n" % rank for entry, rank in vocabulary.ranks().items()]
    description = _describe(vocabulary)
    return b"".join(lines), (json.dumps(description, ensure_ascii=False, indent=1) + "\n").encode()


def _describe(vocabulary: Vocabulary) -> dict[str, Any]:
    """What the file DESCRIPTION says of a vocabulary."""
    description = {
        "format": FORMAT,
        "version": 1,
        "entries": len(vocabulary.entries),
        "fingerprint": vocabulary.fingerprint,
        "languages": list(vocabulary.marked),
        "pattern": vocabulary.pattern,
        "specials": vocabulary.specials,
    }
    if vocabulary.added or vocabulary.first_special != len(vocabulary.entries):
        description |= {
            "version": 2,
            "first_special": vocabulary.first_special,
            "added": len(vocabulary.added),
        }
    return description


def _wrong_key(vocabulary: Vocabulary, description: dict[str, Any]) -> str | None:
    """The first key of a description that is not as `write_vocabulary` writes it; None where all are.

    The fingerprint covers what decides the ids, and the other keys follow from that. A language has its
    marker among the special tokens.
    """
    expected = _describe(vocabulary)
    if odd := set(description) ^ set(expected):
        return min(odd)
    for key, value in expected.items():
        # `True == 1` in Python, and not in JSON.
        if json.dumps(description[key]) != json.dumps(value):
            return key
    found = (_MARKER.fullmatch(name) for name in vocabulary.specials if name not in CONTROL)
    codes = [one[1] for one in found if one]
    marked = vocabulary.marked
    if len(set(marked)) < len(marked) or any(marker_name(code) in CONTROL for code in marked):
        return "languages"
    return None if [code for code in marked if code in codes] == codes else "languages"


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in a folder.

    Args:
        folder: A folder that `write_vocabulary` wrote.

    Raises:
        UserError: The folder holds no tokenizer of braingpt.
        Failure: The folder holds a damaged tokenizer of braingpt.
    """
    try:
        return _read_once(folder)
    except Failure:
        # A writer may have replaced a file between two reads. Under the lock no writer is at work.
        with _folder_lock(Path(folder), fcntl.LOCK_SH):
            return _read_once(folder)


def _read_once(folder: Path) -> Vocabulary:
    """The vocabulary that the description names, with the ranks beside it or those about to replace them."""
    description = _read_description(folder)
    try:
        return _read(folder, description, RANKS)
    except Failure:
        # A writer may be between its last two steps, or was killed there.
        with suppress(Failure, FileNotFoundError):
            return _read(folder, description, NEXT_RANKS)
        raise


def _read(folder: Path, description: dict[str, Any], ranks: str) -> Vocabulary:
    """The vocabulary of a description and the file `ranks`; Failure where the two do not belong together."""
    if not (folder / ranks).is_file():
        raise _damaged(folder, f"{ranks} is missing")
    try:
        pattern, specials, marked, count = (
            description[key] for key in ("pattern", "specials", "languages", "entries")
        )
        first_special = description.get("first_special", count)
        known = {*CONTROL, *map(marker_name, marked)}
        fields_sound = (
            isinstance(pattern, str) and known <= set(specials) and len(set(specials)) == len(specials)
        )
        fields_sound = fields_sound and type(specials) is type(marked) is list
        fields_sound = fields_sound and all(isinstance(name, str) for name in (*specials, *marked))
        fields_sound = fields_sound and type(count) is type(first_special) is int
        fields_sound = fields_sound and 256 <= count <= first_special <= MAX_ID
    except (KeyError, TypeError):
        raise _damaged(folder, f"{DESCRIPTION} lacks a field") from None
    if not fields_sound:
        raise _damaged(folder, f"{DESCRIPTION} lacks a field")
    entries, added = _read_entries(folder, ranks, count, first_special + len(specials))
    vocabulary = Vocabulary(entries, pattern, specials, tuple(marked), added, first_special)
    try:
        fingerprint = vocabulary.fingerprint
    except UnicodeEncodeError:
        raise _damaged(folder, f"{DESCRIPTION} holds half a character") from None
    if fingerprint != description.get("fingerprint"):
        raise _damaged(folder, "its contents do not match its fingerprint")
    # A fingerprint that fits is no proof that an encoder can be made of it.
    every = [*entries, *added]
    if len(entries) < count or len(set(every)) < len(every) or not all(every):
        raise _damaged(folder, f"{ranks} lacks an entry, or has one twice")
    if not {bytes([value]) for value in range(256)} <= set(entries):
        raise _damaged(folder, f"{ranks} lacks the entry of a single byte")
    if key := _wrong_key(vocabulary, description):
        raise _damaged(folder, f"{DESCRIPTION} has another '{key}' than was written")
    if pattern != PATTERN and (reason := why_not_usable(pattern)):
        raise _damaged(folder, reason)
    return vocabulary


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"no tokenizer in {folder} ({DESCRIPTION} is missing); "
            "name a folder made by `braingpt tokenizer train`"
        )
    try:
        description = read_object(path)
    except ValueError as error:
        raise _damaged(folder, f"{DESCRIPTION}: {error}") from None
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a braingpt tokenizer; name a folder made by `braingpt tokenizer train`"
        )
    if description.get("version") not in VERSIONS:
        raise UserError(
            f"{path} has format version {description.get('version')}; "
            f"this braingpt reads {' and '.join(map(str, VERSIONS))}"
        )
    return description


def _read_entries(folder: Path, ranks: str, count: int, first_added: int) -> tuple[list[bytes], list[bytes]]:
    """The `count` entries in the order of their ranks, and those added from rank `first_added` on."""
    entries: list[bytes] = []
    for number, line in enumerate((folder / ranks).read_bytes().splitlines()):
        rank = number if number < count else number - count + first_added
        try:
            text, written = line.split()
            if int(written) != rank:
                raise ValueError
            entries.append(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error):
            raise _damaged(folder, f"line {number + 1} of {ranks} is not an entry with rank {rank}") from None
    return entries[:count], entries[count:]


def _damaged(folder: Path, reason: str) -> Failure:
    return Failure(f"the tokenizer in {folder} is damaged: {reason}; copy or train it again")
