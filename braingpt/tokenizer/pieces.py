"""Token ids as pieces that people can read: the text cut where tokens end, with what cannot be seen made
visible.

A character that several tokens spell (a rare Hangul syllable has three bytes) is one piece that says how
many.
"""

from collections.abc import Iterable
from typing import NamedTuple

from braingpt.tokenizer.encoding import Tokenizer


class Piece(NamedTuple):
    """`text` is what `ids` stand for together; `special` marks a control token or a language marker, spelled
    out.
    """

    text: str
    ids: tuple[int, ...]
    special: bool = False


def pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Piece]:
    """The ids as pieces: one token each, or the tokens of one character together.

    Bytes that make no character become U+FFFD.
    """
    found: list[Piece] = []
    waiting: list[int] = []
    raw = b""

    def flush() -> None:
        nonlocal raw
        if waiting:
            found.append(Piece(raw.decode("utf-8", "replace"), tuple(waiting)))
            waiting.clear()
            raw = b""

    for token in map(int, ids):
        entry = tokenizer.token(token)
        if not entry:
            flush()
            found.append(
                Piece(tokenizer.token(token, specials=True).decode() or f"<|unused {token}|>", (token,), True)
            )
            continue
        waiting.append(token)
        raw += entry
        if _whole(raw):
            flush()
    flush()
    return found


def readable(token: bytes) -> str:
    """The token's text with spaces visible and controls escaped, or its bytes in hexadecimal when they are no
    whole characters.
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


def _whole(raw: bytes) -> bool:
    """Whether no character of `raw` still lacks bytes at the end."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        # the first byte of the last character
        if byte & 0xC0 != 0x80:
            length = (
                1
                if byte < 0x80
                else 2
                if byte >> 5 == 6
                else 3
                if byte >> 4 == 14
                else 4
                if byte >> 3 == 30
                else 1
            )
            return back >= length
    return True
