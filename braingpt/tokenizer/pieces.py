"""Token ids as pieces that people can read: the text cut where tokens end, with invisible characters made
visible.

A character that several tokens spell (a rare Hangul syllable has three bytes) is one piece that says how
many.
"""

from collections.abc import Iterable
from typing import NamedTuple

from braingpt.tokenizer.encoding import Tokenizer


class Piece(NamedTuple):
    """One token, or the tokens that spell one character together.

    Attributes:
        text: The text that the tokens represent.
        ids: The tokens.
        special: Whether it is a control token or a language marker, whose name `text` is.
    """

    text: str
    ids: tuple[int, ...]
    special: bool = False


def pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Piece]:
    """The ids as pieces: one token each, or the tokens of one character together.

    Bytes that make no character become U+FFFD.
    """
    finished: list[Piece] = []
    # Tokens of a character that still lacks bytes, and the bytes so far.
    pending: list[int] = []
    raw = b""

    def flush() -> None:
        nonlocal raw
        if pending:
            finished.append(Piece(raw.decode("utf-8", "replace"), tuple(pending)))
            pending.clear()
            raw = b""

    for token in map(int, ids):
        entry = tokenizer.token(token)
        if not entry:
            flush()
            name = tokenizer.token(token, specials=True).decode() or f"<|unused {token}|>"
            finished.append(Piece(name, (token,), True))
            continue
        pending.append(token)
        raw += entry
        if _ends_whole(raw):
            flush()
    flush()
    return finished


def readable(token: bytes) -> str:
    """The token's text with spaces visible and controls escaped, or its bytes in hexadecimal when they are
    not complete characters.
    """
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return " ".join(f"<{byte:02X}>" for byte in token)
    return escaped(text).replace(" ", "·")


def escaped(text: str) -> str:
    """`text` with every character that cannot be printed (controls, zero-width and direction marks, strange
    spaces) as its escape.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _ends_whole(raw: bytes) -> bool:
    """Whether no character of `raw` still lacks bytes at the end."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:
            return back >= _character_length(byte)
    return True


def _character_length(first_byte: int) -> int:
    """Bytes of the UTF-8 character that begins with `first_byte`; 1 for a byte that begins none."""
    if first_byte >> 5 == 0b110:
        return 2
    if first_byte >> 4 == 0b1110:
        return 3
    return 4 if first_byte >> 3 == 0b11110 else 1
