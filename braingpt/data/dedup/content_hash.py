"""The content of a document as one number, without regard to case and white space: 64 bits of BLAKE2b.

Among 100 million documents, the chance that two different ones share a hash is about 3 in 10,000, and the
loss would be one document.
"""

import hashlib


def content_hash(text: str) -> int:
    """64-bit hash of `text` after case folding and collapsing whitespace; equal on every machine."""
    normalised = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).digest(), "little")


def is_held_out(value: int, share: float) -> bool:
    """Whether a document with content hash `value` belongs to the `share` that is kept for validation."""
    return value < share * 2**64
