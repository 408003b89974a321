"""A tokenizer on disk: a folder with `tokenizer.json` (pattern, specials, fingerprint) and `ranks.tiktoken`
(one entry a line, in base64, with its rank, which is its id: the format tiktoken itself reads). Version 2
is for vocabularies with added entries or specials that do not follow the entries at once; all others stay
version 1, which every braingpt reads.

Whatever is read is checked against the fingerprint in `tokenizer.json`, so a damaged file is found before a
wrong id is made. Files are written under a temporary name and renamed.
"""

import base64
import binascii
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.errors import Failure, UserError
from braingpt.utils.atomic_write import write_whole

if TYPE_CHECKING:
    from braingpt.tokenizer.encoding import Tokenizer

DESCRIPTION, RANKS = "tokenizer.json", "ranks.tiktoken"
FORMAT, VERSIONS = "braingpt-tokenizer", (1, 2)


def write(folder: Path, tokenizer: "Tokenizer") -> None:
    """Write `tokenizer` into `folder`, the description last: where it is, the ranks are too."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [base64.b64encode(entry) + b" %d\n" % rank for entry, rank in tokenizer.ranks().items()]
    write_whole(folder / RANKS, b"".join(lines))
    description = {
        "format": FORMAT,
        "version": 1,
        "entries": len(tokenizer.entries),
        "fingerprint": tokenizer.fingerprint,
        "languages": list(tokenizer.marked),
        "pattern": tokenizer.pattern,
        "specials": tokenizer.specials,
    }
    if tokenizer.added or tokenizer.first_special != len(tokenizer.entries):
        description |= {"version": 2, "first_special": tokenizer.first_special, "added": len(tokenizer.added)}
    write_whole(folder / DESCRIPTION, (json.dumps(description, ensure_ascii=False, indent=1) + "\n").encode())


def read(folder: Path) -> dict[str, Any]:
    """The arguments of `Tokenizer` from `folder`.

    UserError: nothing of ours there. Failure: ours, but damaged.
    """
    from braingpt.tokenizer.encoding import CONTROL, fingerprint_of

    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"no tokenizer in {folder} ({DESCRIPTION} is missing); name a folder made by `braingpt tokenizer train`"
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
            f"{path} has format version {description.get('version')}; this braingpt reads {' and '.join(map(str, VERSIONS))}"
        )
    if not (folder / RANKS).is_file():
        raise _damaged(folder, f"{RANKS} is missing")
    try:
        pattern, specials, marked, count = (
            description[key] for key in ("pattern", "specials", "languages", "entries")
        )
        first = description.get("first_special", count)
        known = {*CONTROL, *(f"<|{code}|>" for code in marked)}
        fields_sound = (
            isinstance(pattern, str) and known <= set(specials) and len(set(specials)) == len(specials)
        )
        fields_sound = fields_sound and 256 <= count <= first
    except (KeyError, TypeError):
        fields_sound = False
    if not fields_sound:
        raise _damaged(folder, f"{DESCRIPTION} lacks a field")
    entries, added = _entries(folder, count, first + len(specials))
    if fingerprint_of(entries, pattern, specials, added, first) != description.get("fingerprint"):
        raise _damaged(folder, "its contents do not match its fingerprint")
    return {
        "entries": entries,
        "pattern": pattern,
        "specials": specials,
        "marked": marked,
        "added": added,
        "first_special": first,
    }


def _entries(folder: Path, count: int, first_added: int) -> tuple[list[bytes], list[bytes]]:
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


def _damaged(folder: Path, why: str) -> Failure:
    return Failure(f"the tokenizer in {folder} is damaged: {why}; copy or train it again")
