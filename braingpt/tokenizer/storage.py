"""A tokenizer on disk: a folder with `tokenizer.json` (pattern, specials, fingerprint) and `ranks.tiktoken`
(one entry a line, in base64, with its rank, which is its id: the format tiktoken itself reads). Version 2
is for vocabularies with added entries, or with specials that do not directly follow the entries. All others
have version 1, which every braingpt reads.

Whatever is read is checked against the fingerprint in `tokenizer.json`, so a damaged file is found before a
wrong id is made. Files are written under a temporary name and renamed.
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from braingpt.errors import Failure, UserError
from braingpt.tokenizer.vocabulary import CONTROL, Vocabulary, marker_name
from braingpt.utils.atomic_write import write_atomically

DESCRIPTION, RANKS = "tokenizer.json", "ranks.tiktoken"
FORMAT, VERSIONS = "braingpt-tokenizer", (1, 2)


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary. The description is written last, so that where it exists the ranks do too.

    Args:
        folder: Where to write; the folder is made if need be.
        vocabulary: The vocabulary.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [base64.b64encode(entry) + b" %d\n" % rank for entry, rank in vocabulary.ranks().items()]
    write_atomically(folder / RANKS, b"".join(lines))
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
    write_atomically(
        folder / DESCRIPTION, (json.dumps(description, ensure_ascii=False, indent=1) + "\n").encode()
    )


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in a folder.

    Args:
        folder: A folder that `write_vocabulary` wrote.

    Raises:
        UserError: The folder holds no tokenizer of braingpt.
        Failure: The folder holds a damaged tokenizer of braingpt.
    """
    description = _read_description(folder)
    if not (folder / RANKS).is_file():
        raise _damaged(folder, f"{RANKS} is missing")
    try:
        pattern, specials, marked, count = (
            description[key] for key in ("pattern", "specials", "languages", "entries")
        )
        first_special = description.get("first_special", count)
        known = {*CONTROL, *map(marker_name, marked)}
        fields_sound = (
            isinstance(pattern, str) and known <= set(specials) and len(set(specials)) == len(specials)
        )
        fields_sound = fields_sound and 256 <= count <= first_special
    except (KeyError, TypeError):
        raise _damaged(folder, f"{DESCRIPTION} lacks a field") from None
    if not fields_sound:
        raise _damaged(folder, f"{DESCRIPTION} lacks a field")
    entries, added = _read_entries(folder, count, first_special + len(specials))
    vocabulary = Vocabulary(entries, pattern, specials, tuple(marked), added, first_special)
    if vocabulary.fingerprint != description.get("fingerprint"):
        raise _damaged(folder, "its contents do not match its fingerprint")
    return vocabulary


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"no tokenizer in {folder} ({DESCRIPTION} is missing); "
            "name a folder made by `braingpt tokenizer train`"
        )
    try:
        description = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise _damaged(folder, f"{DESCRIPTION} is not JSON") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a braingpt tokenizer; name a folder made by `braingpt tokenizer train`"
        )
    if description.get("version") not in VERSIONS:
        raise UserError(
            f"{path} has format version {description.get('version')}; "
            f"this braingpt reads {' and '.join(map(str, VERSIONS))}"
        )
    return description


def _read_entries(folder: Path, count: int, first_added: int) -> tuple[list[bytes], list[bytes]]:
    """The `count` entries in the order of their ranks, and those added from rank `first_added` on."""
    entries: list[bytes] = []
    for number, line in enumerate((folder / RANKS).read_bytes().splitlines()):
        rank = number if number < count else number - count + first_added
        try:
            text, written = line.split()
            if int(written) != rank:
                raise ValueError
            entries.append(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error):
            raise _damaged(folder, f"line {number + 1} of {RANKS} is not an entry with rank {rank}") from None
    return entries[:count], entries[count:]


def _damaged(folder: Path, reason: str) -> Failure:
    return Failure(f"the tokenizer in {folder} is damaged: {reason}; copy or train it again")
