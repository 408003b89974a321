"""A row of a file, and the ways in which a row or a file can be broken."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from braingpt.data.sources.encodings import KOREAN_SHARE, korean_share

# Rules that count a row from which no document can be made.
BROKEN_ROW, NOT_UTF8, LINE_TOO_LONG = "broken row", "not UTF-8", "line too long"
# Bytes that are looked at for a hint, and syllables that are too few to tell frequent from rare ones.
SAMPLE, FEW = 4096, 6


class Damaged(Exception):
    """The file cannot be read to its end: cut short, or not what its name says."""


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        number: The row's number, counted from 1.
        next: Where the next row begins: bytes of decompressed text, or rows of a parquet file.
        values: Values by column; None for a broken row.
        broken: For a broken row, the rule that counts it and what is wrong with it.
    """

    number: int
    next: int
    values: Mapping[str, Any] | None
    broken: tuple[str, str] = ("", "")


def encoding_hint(raw: bytes) -> str:
    """How bytes that are not UTF-8 look, and the option that reads them where they are of the older Korean
    encoding.
    """
    korean = _reads_as_korean(raw)
    excerpt = raw[:60].decode("cp949" if korean else "utf-8", "replace")
    return (" (CP949; --encoding cp949 reads all of a file so)" if korean else "") + f": {excerpt}"


def _reads_as_korean(raw: bytes) -> bool:
    try:
        text = raw[:SAMPLE].decode("cp949", "strict" if len(raw) < SAMPLE else "ignore")
    except UnicodeDecodeError:
        return False
    syllables = sum("가" <= character <= "힣" for character in text)
    # Japanese and Chinese give syllables as well, but rare ones; a few syllables tell nothing of it.
    return 0 < syllables < FEW or korean_share(raw[:SAMPLE], "cp949") >= KOREAN_SHARE
