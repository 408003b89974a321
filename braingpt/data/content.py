"""The content of a document, whatever its case and white space, as one number: 64 bits of BLAKE2b.

Among 100 million documents, the chance that any two different ones share a hash is about 3 in 10,000, and would cost one document.
"""

import hashlib

_SPACES = [character for character in map(chr, range(0x3001)) if character.isspace() and character != " "]  # none lies beyond
_SPACES_OF_ASCII = [character for character in _SPACES if character.isascii()]


def content_hash(text: str) -> int:
    """64-bit hash of `text` after case folding and collapsing whitespace; equal on every machine."""
    return int.from_bytes(hashlib.blake2b(collapsed(text.casefold()).encode("utf-8"), digest_size=8).digest(), "little")


def collapsed(text: str) -> str:
    """`" ".join(text.split())`, which cuts out every word; looking for what is to be replaced is far faster."""
    for space in _SPACES if not text.isascii() else _SPACES_OF_ASCII:
        if space in text:
            text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


def held_out(value: int, share: float) -> bool:
    """Whether a document with content hash `value` belongs to the `share` that is kept for validation."""
    return value < share * 2**64
