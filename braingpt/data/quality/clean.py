"""Canonical text: NFC, one kind of line end, no invisible characters, no stray white space; and repaired
encoding errors where asked for.

`clean` is idempotent, and linear in the length of the text whatever the text is: a line of a million spaces
costs no more than one of letters.
"""

import re
import unicodedata

# Control and format characters without a glyph, byte-order marks and lone surrogates. Joiners stay: emoji and
# Indic scripts need them.
_GLYPHLESS = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_BREAKS = "\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
# Characters that a cleaned text does not have, as in a character class.
REMOVED = _GLYPHLESS + _BREAKS
_INVISIBLE = re.compile(f"[{_GLYPHLESS}]+")
_LINE_ENDS = re.compile(f"\r\n|[{_BREAKS}]")
_EMPTY_LINES = re.compile(r"\n{3,}")

# UTF-8 read as Latin-1 or Windows-1252: the lead byte's letter before what its one, two or three continuation
# bytes turn into. Some of these are quotation marks and dashes, which follow a letter in good text:
# groß“, CAFÉ», déjà…». There another continuation byte has to decide.
_NEXT = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_TELLING = "[\x80-\x9f¡-ª¬-º¼-¿€ƒ†‡ˆ‰Š‹ŒŽ•˜™šœžŸ]"
MOJIBAKE = re.compile(
    f"[\xc2\xc3]{_NEXT}|[\xc4-\xdf]{_TELLING}|"
    f"[\xe0-\xef](?:{_TELLING}{_NEXT}|{_NEXT}{_TELLING})|[\xf0-\xf4]{_NEXT}{{3}}"
)


def clean(text: str) -> str:
    """`text` in NFC, without invisible characters, spaces at line ends, or runs of empty lines; every line
    end is `\\n`.
    """
    return tidy(_INVISIBLE.sub("", _LINE_ENDS.sub("\n", text)))


def tidy(text: str) -> str:
    """`clean` for a text known to hold none of REMOVED, which is far cheaper than looking for these."""
    # NFC comes after the removal, because characters may combine that were apart.
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or "\xa0\n" in text:
        text = "\n".join([line.rstrip(" \t\xa0") for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def repair(text: str) -> str:
    """`text` with mojibake undone (`cafÃ©` -> `café`) by ftfy, which is asked only where the tell-tale pairs
    occur.

    It must come before `clean`, which removes the control characters that show the original bytes.
    """
    if not MOJIBAKE.search(text):
        return text
    import ftfy

    return ftfy.fix_encoding(text)
