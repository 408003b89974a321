"""What makes two documents the same, or nearly, and on which side of the split they stand.

The same: they agree after case folding and collapsing white space; a 64-bit BLAKE2b hash stands for that (among 100 million documents, the
chance that any two different ones share a hash is about 3 in 10,000, and would cost one document). Nearly: the Jaccard similarity of their
token trigrams, computed exactly, reaches a threshold; MinHash only proposes whom to compare. The content hash also decides which documents
are held out for validation, and as only one of a group of near duplicates is kept, no such group stands on both sides.
"""

import hashlib

import numpy as np

NEAR = 0.7  # similarity from which a document is a near duplicate


def content_hash(text: str) -> int:
    """64-bit hash of `text` after case folding and collapsing whitespace; equal on every machine."""
    normalised = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).digest(), "little")


def held_out(value: int, share: float) -> bool:
    """Whether a document with content hash `value` belongs to the `share` that is kept for validation."""
    return value < share * 2**64


def trigrams(ids: np.ndarray) -> np.ndarray:
    """The set of runs of three token ids, as sorted uint64; ids must be below 2^21. A shorter text is one run, padded."""
    wide = np.asarray(ids, dtype=np.uint64)
    if len(wide) < 3:
        wide = np.concatenate([wide, np.full(3 - len(wide), (1 << 21) - 1, dtype=np.uint64)])
    return np.unique(wide[:-2] << np.uint64(42) | wide[1:-1] << np.uint64(21) | wide[2:])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Jaccard similarity of two sets from `trigrams`."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
