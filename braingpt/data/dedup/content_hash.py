"""The content of a document, whatever its case and white space, as one number: 64 bits of BLAKE2b.

Among 100 million documents, the chance that any two different ones share a hash is about 3 in 10,000, and
would cost one document.
"""

import hashlib


def content_hash(text: str) -> int:
    """64-bit hash of `text` after case folding and collapsing whitespace; equal on every machine."""
    normalised = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).digest(), "little")


def is_held_out(value: int, share: float) -> bool:
    """Whether a document with content hash `value` belongs to the `share` that is kept for validation."""
    return value < share * 2**64
