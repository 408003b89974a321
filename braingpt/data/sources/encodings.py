"""The encoding of a text, told from a sample of its bytes: UTF-8, UTF-16 and UTF-32 with and without a
byte-order mark, CP949, Johab, and Windows-1252.

A mark decides. Without one, UTF-8 is recognised by its form, and the others by how often the syllables and
letters that a candidate gives are frequent ones: Korean read in the wrong encoding is a noise of rare
syllables. A sample that fits none stays UTF-8, so that what is broken is counted and not turned into noise.
"""

import codecs
import re
from collections.abc import Iterable

from braingpt.errors import UserError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The most frequent syllables of Korean web text, about half of all that occur.
FREQUENT = frozenset(
    "이다는에의가고을하지한로기은사도인를서리있으시대어정자나수해라들전스보그상부만면장일과주"
    "제아여공성원구유동게비경안선우소니오진조관습까마신세것개요계중적용합트드할입함터된되설변"
)
# Share of frequent syllables among all from which a text reads as Korean; noise has a few per cent.
KOREAN_SHARE = 0.25
# Letters and marks of Windows-1252 that the European languages use.
EUROPEAN = frozenset("äöüßÄÖÜàâæçéèêëîïôœùûÀÂÇÉÈÊËÎÏÔŒÙÛìíòóúñÁÍÓÚÑÌÒ¿¡«»“”‘’„‚–—…€°§·ªº\u00a0£©®")
EUROPEAN_SHARE = 0.95
# Bytes that are no UTF-8, per character beyond ASCII that is: above it, another encoding is looked for.
BROKEN_SHARE = 0.2
# Bytes in a row beyond ASCII that Windows-1252 does not reach in the languages it is used for.
LONG_RUN = re.compile(rb"[\x80-\xff]{4}")
NAMES = {"cp949": "CP949", "johab": "Johab", "cp1252": "Windows-1252"}


def named_encoding(name: str) -> str:
    """The codec called `name`; UserError where Python has none for text."""
    try:
        codec = codecs.lookup(name.strip())
        if not codec._is_text_encoding:
            raise LookupError
    except (LookupError, ValueError):
        raise UserError(
            f"--encoding {name} is not known; usual ones are utf-8, utf-16, cp949, johab"
        ) from None
    # EUC-KR as files name it is CP949 as programs write it.
    return "cp949" if codec.name == "euc_kr" else codec.name


def shown_encoding(encoding: str) -> str:
    """The name of an encoding in a line for the user."""
    return NAMES.get(encoding, encoding.upper())


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte-order mark announces."""
    return next((encoding for mark, encoding in MARKS if data.startswith(mark)), None)


def detect_encoding(samples: Iterable[bytes]) -> str:
    """The encoding of a file, from its beginning and, where they could be read, other places of it."""
    first, *others = samples
    if marked := marked_encoding(first):
        return marked
    if wide := _wide_encoding(first):
        return wide
    data = b"\n".join([_whole_lines(first), *others])
    if data.isascii() or _is_utf8(data):
        return "utf-8"
    best, share = max(
        ((name, korean_share(data, name)) for name in ("cp949", "johab")), key=lambda one: one[1]
    )
    if share >= KOREAN_SHARE:
        return best
    return "cp1252" if _is_european(data) else "utf-8"


def korean_share(data: bytes, encoding: str) -> float:
    """Share of frequent syllables among all characters beyond ASCII that the bytes give in an encoding."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        return 0.0
    text = data.decode(encoding, "replace")
    other = [character for character in text if not character.isascii()]
    return sum(character in FREQUENT for character in other) / len(other) if other else 0.0


def _whole_lines(data: bytes) -> bytes:
    """The sample without its last line, which may end within a character."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r"))
    return data[: end + 1] if end > len(data) // 2 else data


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "surrogateescape")
    other = [character for character in text if not character.isascii()]
    broken = sum("\udc80" <= character <= "\udcff" for character in other)
    # The last character may be cut.
    return broken <= max(3 if len(other) > 6 else 0, BROKEN_SHARE * (len(other) - broken))


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: spaces, line ends and digits have zero bytes at one side."""
    data = data[: len(data) & ~3]
    if len(data) < 4 or 0 not in data:
        return None
    quarters = [data[place::4].count(0) / (len(data) // 4) for place in range(4)]
    if min(quarters[2:]) > 0.9 and quarters[0] < 0.1:
        return "utf-32-le"
    if min(quarters[:2]) > 0.9 and quarters[3] < 0.1:
        return "utf-32-be"
    shares = {
        encoding: _likely_share(data.decode(encoding, "replace")) for encoding in ("utf-16-le", "utf-16-be")
    }
    best = max(shares, key=lambda encoding: shares[encoding])
    return best if shares[best] > 0.6 and shares[best] > 1.5 * min(shares.values()) else None


def _likely_share(text: str) -> float:
    """Share of characters that a text of letters has: printable ASCII, Latin letters, frequent syllables and,
    counted half, the others.
    """
    if not text or text.count("\0") > len(text) / 50:
        return 0.0
    weight = 0.0
    for character in text:
        if " " <= character <= "~" or character in "\n\r\t" or character in FREQUENT or character in EUROPEAN:
            weight += 1
        elif "가" <= character <= "힣":
            weight += 0.5
    return weight / len(text)


def _is_european(data: bytes) -> bool:
    """Letters with accents among many more without: Windows-1252, which also covers Latin-1."""
    if LONG_RUN.search(data):
        return False
    text = data.decode("cp1252", "replace")
    other = [character for character in text if not character.isascii()]
    return (
        len(other) <= len(text) / 3
        and sum(character in EUROPEAN for character in other) >= EUROPEAN_SHARE * len(other)
        and any(character.isalpha() for character in other)
    )
