"""The memory of deduplication: for every kept document its keys and where its tokens lie, on the disk, whatever the corpus' size.

Two files in the work folder. The log has one record a document, in order, and is all that counts: after an interruption it is cut back to
the length the journal names. The table finds the first document with a key: open addressing with linear probing in a memory-mapped file,
8 bytes a slot (document number + 1, and 32 bits of the key; a match is checked against the log, so what is found depends on the log
alone). It is made anew from the log when it must grow or the process begins. The pages of both are handed back to the system's cache
after every batch, so resident memory does not follow the table.
"""

import mmap
import os
from pathlib import Path

import numpy as np

from braingpt.data.minhash import BANDS

KEYS = 1 + BANDS  # the content hash, then the bands
RECORD = np.dtype([("keys", "<u8", KEYS), ("at", "<u8"), ("length", "<u4"), ("stream", "<u2"), ("file", "<u2")])
LOG = "documents.log"
FIRST_SLOTS = 1 << 16
LOAD = 0.6  # slots in use at most
REPLAY = 1 << 15  # records taken from the log at once
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


class Index:
    """Keys and places of the kept documents in `folder`, which is made by others. Numbers count documents from 0."""

    def __init__(self, folder: Path, count: int = 0) -> None:
        """Begin with the first `count` records of the log, which must be there."""
        self.path, self._table_path = folder / LOG, folder / "documents.table"
        self._log = self.path.open("r+b" if count else "w+b")
        self._log.truncate(count * RECORD.itemsize)
        self._log.seek(0, os.SEEK_END)
        self._mapped = np.empty(0, dtype=RECORD)
        self.count = count
        self._make_table(FIRST_SLOTS)
        self._replay(0)

    def find(self, keys_NK: np.ndarray) -> np.ndarray:
        """For each of the keys the number of the first document that has it, -1 for none; int64 (N, KEYS)."""
        flat = keys_NK.reshape(-1)
        column = np.tile(np.arange(KEYS), len(keys_NK))
        found = np.full(len(flat), -1, dtype=np.int64)
        left = np.arange(len(flat))
        slot = (flat & self._mask).astype(np.int64)
        while len(left):
            entry = self._slots[slot[left]]
            same = np.flatnonzero((entry >> _32 == flat[left] >> _32) & (entry != 0))
            if len(same):
                number = (entry[same] & _LOW).astype(np.int64) - 1
                true = self._records()["keys"][number, column[left[same]]] == flat[left[same]]
                found[left[same[true]]] = number[true]
            left = left[(entry != 0) & (found[left] < 0)]
            slot[left] = (slot[left] + 1) & int(self._mask)
        self._rest()
        return found.reshape(keys_NK.shape)

    def add(self, records: np.ndarray) -> None:
        """Append documents, of dtype RECORD. A key that is there already keeps its first document."""
        if len(records):
            self._log.write(records.tobytes())
            before, self.count = self.count, self.count + len(records)
            self._replay(before)

    def records(self, numbers: np.ndarray) -> np.ndarray:
        """Records of the documents with these numbers."""
        return self._records()[numbers]

    def sync(self) -> None:
        """The log on the disk, for the journal to name its length."""
        self._log.flush()
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Close the files; the index can no longer be used."""
        self._log.close()
        self._mapped = self._slots = np.empty(0)
        self._map.close()

    def _records(self) -> np.ndarray:
        """The log as it is, mapped anew when it has grown."""
        if len(self._mapped) < self.count:
            self._log.flush()
            # a plain array over the map: np.memmap's own indexing is ten times slower
            self._mapped = np.memmap(self.path, dtype=RECORD, mode="r", shape=self.count).view(np.ndarray)
        return self._mapped

    def _make_table(self, slots: int) -> None:
        self._slots = np.empty(0)  # the former map is let go before its file is
        with self._table_path.open("w+b") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a SIGBUS at the first touch of a hole
                os.posix_fallocate(file.fileno(), 0, slots * 8)
            else:
                file.truncate(slots * 8)
            self._map = mmap.mmap(file.fileno(), slots * 8)
        self._slots = np.frombuffer(self._map, dtype="<u8")
        self._mask = np.uint64(slots - 1)

    def _replay(self, start: int) -> None:
        """Put the log's documents from `start` on into the table, which grows before it is too full."""
        if self.count * KEYS > LOAD * len(self._slots):
            slots = len(self._slots)
            while self.count * KEYS > LOAD / 2 * slots:
                slots *= 2
            self._make_table(slots)
            start = 0
        for begin in range(start, self.count, REPLAY):
            self._insert(begin, self._records()["keys"][begin : min(begin + REPLAY, self.count)])
        self._rest()

    def _insert(self, begin: int, keys_NK: np.ndarray) -> None:
        numbers = np.repeat(np.arange(begin, begin + len(keys_NK)), KEYS)
        flat, first = np.unique(keys_NK.reshape(-1), return_index=True)  # of documents with the same key the first
        column, numbers = first % KEYS, numbers[first]
        value = flat >> _32 << _32 | (numbers + 1).astype(np.uint64)
        left = np.arange(len(flat))
        slot = (flat & self._mask).astype(np.int64)
        while len(left):
            entry = self._slots[slot[left]]
            empty = np.flatnonzero(entry == 0)
            won = empty[np.unique(slot[left[empty]], return_index=True)[1]]  # of several keys for an empty slot one gets it
            self._slots[slot[left[won]]] = value[left[won]]
            done = np.zeros(len(left), dtype=bool)
            done[won] = True
            alike = np.flatnonzero((entry >> _32 == flat[left] >> _32) & (entry != 0))
            if len(alike):
                number = (entry[alike] & _LOW).astype(np.int64) - 1
                done[alike] = self._records()["keys"][number, column[left[alike]]] == flat[left[alike]]
            left = left[~done]
            slot[left] = (slot[left] + 1) & int(self._mask)

    def _rest(self) -> None:
        """Give the mapped pages back; they stay in the system's cache, and the file has what they hold."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        self._mapped = np.empty(0, dtype=RECORD)
