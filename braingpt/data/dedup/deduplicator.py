"""What makes two documents the same, or nearly, and on which side of the split they stand.

The same: their content hashes agree (`content.py`). Nearly: the Jaccard similarity of their token trigrams,
computed exactly, reaches a threshold; MinHash only proposes whom to compare. The content hash also decides
which documents are held out for validation, and as only one of a group of near duplicates is kept, no such
group stands on both sides.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np

from braingpt.data.dedup.index import KEYS, RECORD, Index
from braingpt.data.shards.writer import Place


def trigrams(ids: np.ndarray) -> np.ndarray:
    """The set of runs of three token ids, as sorted uint64; ids must be below 2^21.

    A shorter text is one run, padded.
    """
    wide = np.asarray(ids, dtype=np.uint64)
    if len(wide) < 3:
        wide = np.concatenate([wide, np.full(3 - len(wide), (1 << 21) - 1, dtype=np.uint64)])
    return np.unique(wide[:-2] << np.uint64(42) | wide[1:-1] << np.uint64(21) | wide[2:])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Jaccard similarity of two sets from `trigrams`."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


class Deduplicator:
    """Finds the documents that are there already, a chunk at a time.

    `read`: gives the tokens of a record of the index.

    `near`: similarity from which a document is a near duplicate, None to look for the same ones only.
        Verdicts depend on the documents before, not on how they were cut into chunks.
    """

    def __init__(self, index: Index, read: Callable[[np.void], np.ndarray], near: float | None) -> None:
        self.index, self._read, self._near = index, read, near
        self.begin(np.empty((0, KEYS), dtype=np.uint64), [])

    def begin(self, keys_NK: np.ndarray, ids: list[np.ndarray]) -> None:
        """The next chunk: keys and tokens of its documents, about which `rule` and `keep` are then asked in
        their order.
        """
        self._keys_NK, self._ids = keys_NK, ids
        self._found_NK = self.index.find(keys_NK)
        # within the chunk: content hash -> number
        self._exact: dict[int, int] = {}
        # band key -> the first document that has it
        self._bands: dict[int, int] = {}
        keys, counts = (
            np.unique(keys_NK[:, 1:], return_counts=True) if self._near else (np.empty(0), np.empty(0))
        )
        self._repeated_NK = (
            np.isin(keys_NK[:, 1:], keys[counts > 1])
            if self._near
            else np.zeros((len(keys_NK), 0), dtype=bool)
        )
        self._records: list[tuple[np.ndarray, int, int, int, int]] = []

    def rule(self, number: int) -> str | None:
        """What drops the document: "duplicate", "near duplicate", or None when it is new."""
        if self._found_NK[number, 0] >= 0 or int(self._keys_NK[number, 0]) in self._exact:
            return "duplicate"
        if self._near is None:
            return None
        before = np.unique(self._found_NK[number, 1:])
        before = before[before >= 0]
        new = self._keys_NK[number, 1:][self._repeated_NK[number] & (self._found_NK[number, 1:] < 0)].tolist()
        # of each key the first document, wherever it is
        here = dict.fromkeys(self._bands[key] for key in new if key in self._bands)
        if not len(before) and not here:
            return None
        own = trigrams(self._ids[number])
        others = chain(
            (self._ids[other] for other in here),
            map(self._read, self.index.records(before) if len(before) else ()),
        )
        return (
            "near duplicate"
            if any(similarity(own, trigrams(other)) >= self._near for other in others)
            else None
        )

    def keep(self, number: int, stream: int, place: Place) -> None:
        """The document is written, there."""
        self._exact[int(self._keys_NK[number, 0])] = number
        for key in self._keys_NK[number, 1:][self._repeated_NK[number]].tolist() if self._near else ():
            self._bands.setdefault(key, number)
        self._records.append((self._keys_NK[number], place.at, place.length, stream, place.file))

    def end(self) -> None:
        """The chunk is done: what was kept goes into the index."""
        self.index.add(np.array([(keys, *rest) for keys, *rest in self._records], dtype=RECORD))
        self._records = []
