"""A document's text: cleaned as all text is (`braingpt.tokenizer.cleaning`), without stray white space; and
repaired encoding errors where asked for.

`clean` is idempotent, and linear in the length of the text whatever the text is: a line of a million spaces
costs no more than one of letters.
"""

import re

from braingpt.tokenizer.cleaning import clean_text

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
    """`clean_text(text)` without spaces at line ends, runs of empty lines, or white space around it."""
    return tidy(clean_text(text))


def tidy(text: str) -> str:
    """The white space of `clean`, for a text whose characters are cleaned."""
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
