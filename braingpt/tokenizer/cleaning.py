"""The cleaning of every text: before a vocabulary or a model learns from it, and before a model reads it.

The same text can be stored as different characters. macOS and some input methods write Hangul in parts (NFD),
web pages hold zero-width characters, and Hangul fillers are letters without a glyph. A model has seen only
cleaned text, so that any other form costs it ten times the tokens and finds nothing it has learned.

`clean_text` keeps the spaces and empty lines of a text, because a prompt may end in one.
`braingpt.data.quality.clean.clean` also tidies these, for whole documents.

    clean_text("\u1112\u1161\u11ab\u3164\u200b")        # "한"
    text, changes = clean_counted(text)
    if changes:
        print(changes.describe())
"""

import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby

import numpy as np

from braingpt.errors import UserError

# Hangul fillers: letters by their category, without a glyph.
FILLERS = "\u115f\u1160\u3164\uffa0"
_SURROGATES = "\ud800-\udfff"
# Control and format characters without a glyph, and byte-order marks. Joiners stay: emoji and Indic scripts
# need them.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb"
)
_BREAKS = "\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
# Characters that a cleaned text does not have, as in a character class.
REMOVED = _INVISIBLE + FILLERS + _SURROGATES + _BREAKS
_removed = re.compile(f"[{REMOVED}]")
_without_glyph = re.compile(f"[{_INVISIBLE}{FILLERS}{_SURROGATES}]+")
_invisible = re.compile(f"[{_INVISIBLE}]+")
_fillers = re.compile(f"[{FILLERS}]+")
_surrogates = re.compile(f"[{_SURROGATES}]+")
_line_ends = re.compile(f"\r\n|[{_BREAKS}]")
# Runs that may be of marks, as long as no writing needs on one character.
_runs = re.compile("[^\x00-\u02ff\u1100-\u1200\u3100-\ua66e\uac00-\udfff]{32,}")
_ASCII_REMOVED = bytes(code for code in range(128) if _removed.match(chr(code)))

# Characters of a text up to which looking at each is faster than the table.
SHORT_TEXT = 1000
# Characters looked at at once.
BLOCK = 1 << 16
# Kinds of characters: those that cleaning removes, and those with which a text may not be in NFC.
_REMOVED, _UNSURE = 1, 2


@dataclass(frozen=True)
class Changes:
    """What cleaning changed, in characters; false where nothing was changed.

    Attributes:
        composed: Characters that NFC replaced by others, such as the parts of a Hangul syllable.
        invisible: Zero-width, direction and control characters removed.
        fillers: Hangul fillers removed.
        surrogates: Bytes that were not UTF-8, and other lone surrogates, removed.
        line_ends: Line ends other than a line feed, replaced by one.
    """

    composed: int = 0
    invisible: int = 0
    fillers: int = 0
    surrogates: int = 0
    line_ends: int = 0

    def __bool__(self) -> bool:
        return any(self.as_dict().values())

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(*map(int.__add__, self.as_dict().values(), other.as_dict().values()))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def describe(self) -> str:
        """The counts in words, without those that are zero."""
        words = {
            "composed": ("character composed (NFC)", "characters composed (NFC)"),
            "invisible": ("invisible character removed", "invisible characters removed"),
            "fillers": ("Hangul filler removed", "Hangul fillers removed"),
            "surrogates": ("broken byte removed", "broken bytes removed"),
            "line_ends": ("line end replaced", "line ends replaced"),
        }
        return ", ".join(
            f"{count:,} {words[name][count > 1]}" for name, count in self.as_dict().items() if count
        )


NO_CHANGES = Changes()


def clean_text(text: str) -> str:
    """A text in NFC, without characters that have no glyph; every line end is `\\n`.

    Idempotent. Spaces, tabs and empty lines stay.

    Args:
        text: Any text.

    Returns:
        The cleaned text; the same object where nothing was to be changed.
    """
    if _is_clean(text):
        return text
    # Line ends come after the removal, and NFC too, because characters may meet that were apart.
    return compose(_line_ends.sub("\n", _without_glyph.sub("", text)))


def clean_counted(text: str) -> tuple[str, Changes]:
    """`clean_text(text)`, and what it changed.

    Args:
        text: Any text.

    Returns:
        The cleaned text and the counts.
    """
    if _is_clean(text):
        return text, NO_CHANGES
    invisible, fillers, surrogates = (
        sum(map(len, kind.findall(text))) for kind in (_invisible, _fillers, _surrogates)
    )
    shown = _without_glyph.sub("", text)
    lines, line_ends = _line_ends.subn("\n", shown)
    cleaned = compose(lines)
    composed = (Counter(lines) - Counter(cleaned)).total() if cleaned != lines else 0
    # Marks that are only put into another order are the same characters.
    return cleaned, Changes(composed or int(cleaned != lines), invisible, fillers, surrogates, line_ends)


def compose(text: str) -> str:
    """The text in NFC; the same object where it is in NFC.

    The time is linear in the length: long runs of marks are sorted here, because `unicodedata` sorts a run of
    n marks in n * n steps.
    """
    if unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", _runs.sub(_in_canonical_order, text))


def clean_valid(text: str) -> str:
    """`clean_text` for a text that a model is about to read, of which no broken part may be dropped.

    Args:
        text: Any text.

    Returns:
        The cleaned text; the same object where nothing was to be changed.

    Raises:
        UserError: The text holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise UserError(f"the text must be a str, not {type(text).__name__}")
    if _is_clean(text):
        return text
    check_valid(text)
    return clean_text(text)


def check_valid(text: str) -> None:
    """Check that a text can be written as UTF-8.

    Raises:
        UserError: It holds a lone surrogate.
    """
    if (found := _surrogates.search(text)) is None:
        return
    at, code = found.start(), ord(found[0][0])
    what = "it is not valid Unicode"
    if 0xDC80 <= code <= 0xDCFF:
        # What Python makes of the bytes of arguments and of standard input (PEP 383).
        what = f"byte 0x{code - 0xDC00:02X} is not UTF-8, convert the text first"
    raise UserError(f"the text holds a lone surrogate (U+{code:04X}) at character {at}; {what}")


def _is_clean(text: str) -> bool:
    """Whether cleaning would change nothing, found in some hundredths of the time that encoding takes."""
    if text.isascii():
        raw = text.encode("ascii")
        return len(raw.translate(None, _ASCII_REMOVED)) == len(raw)
    if len(text) > SHORT_TEXT:
        kinds = _kinds(text)
    elif text.replace("\n", " ").isprintable():
        # No control or format character is printable. Four searches are faster than an expression or a loop.
        fillers = "\u3164" in text or "\u115f" in text or "\u1160" in text or "\uffa0" in text
        kinds = _REMOVED if fillers else _UNSURE
    else:
        kinds = _REMOVED if _removed.search(text) else _UNSURE
    if kinds & _REMOVED:
        return False
    return not kinds or unicodedata.is_normalized("NFC", text)


def _kinds(text: str) -> int:
    """The kinds of all characters, joined by or.

    A table of all code points is many times faster than a regular expression with as many ranges.
    """
    kinds, table_C = 0, _kind_table()
    for start in range(0, len(text), BLOCK):
        raw = text[start : start + BLOCK].encode("utf-32-le", "surrogatepass")
        kinds |= int(np.bitwise_or.reduce(table_C.take(np.frombuffer(raw, np.uint32), mode="clip")))
    return kinds


@cache
def _kind_table() -> np.ndarray:
    """uint8 (0x110000,): _REMOVED, _UNSURE or 0 of every code point."""
    table_C = np.zeros(0x110000, np.uint8)
    # Vowels and final consonants, which join the syllable before them.
    table_C[0x1161:0x1176] = table_C[0x11A8:0x11C3] = _UNSURE
    # Beyond Latin, without the ideographs and syllables that never change.
    for code in (
        *range(0xC0, 0x3100),
        *range(0xA66F, 0xAC00),
        *range(0xF900, 0x1F000),
        *range(0x2F800, 0x2FA20),
    ):
        char = chr(code)
        if unicodedata.combining(char) or not unicodedata.is_normalized("NFC", char):
            table_C[code] = _UNSURE
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and parts[0][0] != "<":
            # The second part of a character may join the first.
            table_C[int(parts[1], 16)] = _UNSURE
    table_C[[ord(char) for char in _removed.findall("".join(map(chr, range(0x10000))))]] = _REMOVED
    return table_C


def _in_canonical_order(run: re.Match[str]) -> str:
    """Characters as the canonical ordering of Unicode (chapter 3.11) puts them, decomposed."""
    decomposed = "".join(unicodedata.normalize("NFD", char) for char in run[0])
    return "".join(
        char
        for is_mark, chars in groupby(decomposed, lambda char: unicodedata.combining(char) > 0)
        for char in (sorted(chars, key=unicodedata.combining) if is_mark else chars)
    )
