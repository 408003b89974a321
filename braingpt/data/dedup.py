"""Exact deduplication over a whole preparation, in about eight bytes a document.

Two texts are the same when they agree after case folding and collapsing whitespace. Each is remembered by a 64-bit BLAKE2b hash only:
among 100 million documents, the chance that any two different ones share a hash is about 3 in 10,000, and would cost one document.
The same hash decides which documents are held out for validation, so a text never stands on both sides.
"""

import hashlib

import numpy as np

_RECENT = 1 << 16  # hashes held in a Python set before they are merged into the sorted array


def content_hash(text: str) -> int:
    """64-bit hash of `text` after case folding and collapsing whitespace; equal on every machine."""
    normalised = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normalised.encode("utf-8"), digest_size=8).digest(), "little")


def held_out(value: int, share: float) -> bool:
    """Whether a document with content hash `value` belongs to the `share` that is kept for validation."""
    return value < share * 2**64


class Seen:
    """The hashes met so far: a small set of recent ones over a sorted array of all others.

    The set is merged into the array when it reaches a sixteenth of it, so adding n hashes sorts O(n) of them in total times a constant,
    and memory stays near 8 bytes a hash plus the set.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.empty(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, value: int) -> bool:
        """Remember a 64-bit hash; True when it is new."""
        if value in self._recent or self._in_sorted(value):
            return False
        self._recent.add(value)
        if len(self._recent) >= max(_RECENT, len(self._sorted) // 16):
            fresh = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, np.sort(fresh)]), kind="stable")  # merges two sorted runs
            self._recent = set()
        return True

    def _in_sorted(self, value: int) -> bool:
        at = int(np.searchsorted(self._sorted, np.uint64(value)))
        return at < len(self._sorted) and int(self._sorted[at]) == value
