"""Finds duplicates and near duplicates.

Two documents are duplicates when their content hashes agree (`content_hash.py`). They are near duplicates
when the Jaccard similarity of their token trigrams, computed exactly, reaches a threshold; MinHash only
proposes which ones to compare. The content hash also decides which documents are held out for validation.
Only one document of a group of near duplicates is kept, so no group is on both sides of the split.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np

from braingpt.data.dedup.index import KEYS, RECORD, Index
from braingpt.data.shards.stream_writer import Place


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
    """Finds documents that were kept before, a chunk at a time.

    For every chunk: `begin`, then `rule` for each of its documents and `keep` for those that are written, in
    their order, then `end`. Verdicts depend on the documents before, not on how they were cut into chunks.
    """

    def __init__(self, index: Index, read: Callable[[int, Place], np.ndarray], near: float | None) -> None:
        """A deduplicator over the documents of an index.

        Args:
            index: The documents kept so far.
            read: Gives the tokens of a document, from the number of its stream and its place there.
            near: Similarity from which a document is a near duplicate; None: only duplicates are found.
        """
        self.index, self._read, self._near = index, read, near
        self.begin(np.empty((0, KEYS), dtype=np.uint64), [])

    def begin(self, keys_NK: np.ndarray, ids: list[np.ndarray]) -> None:
        """Take the next chunk: keys, uint64 (documents, KEYS), and tokens of its documents."""
        self._keys_NK, self._ids = keys_NK, ids
        self._found_NK = self.index.find(keys_NK)
        # Content hash -> number of the document, within the chunk.
        self._exact: dict[int, int] = {}
        # Band key -> number of the first document that has it, within the chunk.
        self._bands: dict[int, int] = {}
        # True at band keys that several documents of the chunk have.
        self._repeated_NK = np.zeros((len(keys_NK), 0), dtype=bool)
        if self._near:
            keys, counts = np.unique(keys_NK[:, 1:], return_counts=True)
            self._repeated_NK = np.isin(keys_NK[:, 1:], keys[counts > 1])
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
        # For each key the first document counts, in the index or in this chunk.
        here = dict.fromkeys(self._bands[key] for key in new if key in self._bands)
        if not len(before) and not here:
            return None
        own = trigrams(self._ids[number])
        others = chain(
            (self._ids[other] for other in here),
            map(self._read_record, self.index.records(before) if len(before) else ()),
        )
        is_near = any(similarity(own, trigrams(other)) >= self._near for other in others)
        return "near duplicate" if is_near else None

    def keep(self, number: int, stream: int, place: Place) -> None:
        """Record that the document was written to this place of this stream."""
        self._exact[int(self._keys_NK[number, 0])] = number
        for key in self._keys_NK[number, 1:][self._repeated_NK[number]].tolist() if self._near else ():
            self._bands.setdefault(key, number)
        self._records.append((self._keys_NK[number], place.at, place.length, stream, place.file))

    def end(self) -> None:
        """End the chunk: what was kept goes into the index."""
        self.index.add(np.array([(keys, *fields) for keys, *fields in self._records], dtype=RECORD))
        self._records = []

    def _read_record(self, record: np.void) -> np.ndarray:
        place = Place(int(record["file"]), int(record["at"]), int(record["length"]))
        return self._read(int(record["stream"]), place)
