"""The memory of deduplication, on the disk for a corpus of any size: for every kept document its keys and
where its tokens are.

The work folder has two files. The log has one record a document, in order, and decides everything: after an
interruption it is cut back to the length that the journal names. The table finds the first document with a
key. It is a memory-mapped file with open addressing and linear probing, of 8 bytes a slot: document number +
1, and 32 bits of the key. A match is checked against the log, so the result depends on the log alone.

The table is built again from the log when it must grow or the process begins. The table is read in order, one
section at a time, and the pages of a section are released after it. The log is read in batches, and mapped
only to look at single records. Resident memory therefore grows with neither.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from braingpt.data.dedup.minhash import BANDS
from braingpt.data.shards.manifest import DOCUMENT_LOG
from braingpt.data.shards.stream_writer import prefix_hash

# Keys of a document: the content hash, then the bands.
KEYS = 1 + BANDS
RECORD = np.dtype(
    [("keys", "<u8", KEYS), ("at", "<u8"), ("length", "<u4"), ("stream", "<u2"), ("file", "<u2")]
)
FIRST_SLOTS = 1 << 16
# Share of the slots in use at most; a table that is fuller grows to twice its size.
LOAD = 0.6
# Slots read before their pages are handed back: 64 MB.
SECTION = 1 << 23
# Records taken from the log at once.
REPLAY = 1 << 15
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_NO_SLOTS = np.empty(0, dtype="<u8")


class Index:
    """Keys and places of the kept documents, in an existing folder.

    Documents are numbered from 0 in the order in which they were added.
    """

    def __init__(self, folder: Path, count: int = 0) -> None:
        """Begin with the first `count` records of the log, which must be there."""
        self.path, self._table_path = folder / DOCUMENT_LOG, folder / "documents.table"
        self._digest = prefix_hash(self.path, count * RECORD.itemsize) if count else hashlib.sha256()
        self._log = self.path.open("r+b" if count else "w+b")
        self._log.truncate(count * RECORD.itemsize)
        self._log.seek(0, os.SEEK_END)
        self._mapped = np.empty(0, dtype=RECORD)
        self.count = count
        self._make_table(self._slots_needed(FIRST_SLOTS))
        self._fill(self.batches)

    def find(self, keys_NK: np.ndarray) -> np.ndarray:
        """For each of the keys the number of the first document that has it, -1 for none; int64 (N, KEYS)."""
        flat = keys_NK.reshape(-1)
        found = np.full(len(flat), -1, dtype=np.int64)
        for inside in self._sections(flat):
            self._find(flat, inside, found)
            self._release_pages()
        return found.reshape(keys_NK.shape)

    def add(self, records: np.ndarray) -> None:
        """Append documents, of dtype RECORD. A key that exists already keeps its first document."""
        if len(records):
            raw = records.tobytes()
            self._log.write(raw)
            self._digest.update(raw)
            before, self.count = self.count, self.count + len(records)
            slots = self._slots_needed(len(self._slots))
            if slots > len(self._slots):
                self._make_table(slots)
                self._fill(self.batches)
            else:
                self._fill(lambda: [(before, records)])

    def batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """All records, REPLAY at a time, each batch with the number of its first record. They are read and
        not mapped, because mapped pages stay resident.
        """
        self._log.flush()
        for begin in range(0, self.count, REPLAY):
            count = min(REPLAY, self.count - begin)
            yield begin, np.fromfile(self.path, dtype=RECORD, count=count, offset=begin * RECORD.itemsize)

    def records(self, numbers: np.ndarray) -> np.ndarray:
        """Records of the documents with these numbers."""
        return self._records()[numbers]

    def sync(self) -> None:
        """Put the log on the disk, for the journal to name its length."""
        self._log.flush()
        os.fsync(self._log.fileno())

    def log_hash(self) -> str:
        """SHA-256 of all records of the log."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the files; the index can no longer be used."""
        self._log.close()
        self._mapped, self._slots = np.empty(0, dtype=RECORD), _NO_SLOTS
        self._map.close()

    def _records(self) -> np.ndarray:
        """The log as it is, mapped again when it has grown."""
        if len(self._mapped) < self.count:
            self._log.flush()
            # A plain array over the map: np.memmap's own indexing is ten times slower.
            self._mapped = np.memmap(self.path, dtype=RECORD, mode="r", shape=self.count).view(np.ndarray)
        return self._mapped

    def _make_table(self, slots: int) -> None:
        # The former map must be released before its file is.
        self._slots = _NO_SLOTS
        with self._table_path.open("w+b") as file:
            # A full disk is an error here, and would be a SIGBUS at the first touch of a hole.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, slots * 8)
            else:
                file.truncate(slots * 8)
            self._map = mmap.mmap(file.fileno(), slots * 8)
        self._slots: np.ndarray = np.frombuffer(self._map, dtype="<u8")
        self._shift = np.uint64(64 - (slots.bit_length() - 1))

    def _home(self, keys: np.ndarray) -> np.ndarray:
        """The slots where looking for keys begins: their upper bits, so that sorted keys go through the table
        in order.
        """
        return (keys >> self._shift).astype(np.int64)

    def _sections(self, flat: np.ndarray) -> Iterator[np.ndarray]:
        """Indices of the keys, sorted, a section of the table at a time: all pages touched in between are
        resident at once.
        """
        order = np.argsort(flat)
        ends = np.searchsorted(
            self._home(flat[order]), np.arange(SECTION, len(self._slots) + SECTION, SECTION)
        )
        yield from (inside for inside in np.split(order, ends) if len(inside))

    def _find(self, flat: np.ndarray, pending: np.ndarray, found: np.ndarray) -> None:
        """Look for the keys at the indices `pending`; write the numbers of their documents into `found`."""
        slot = self._home(flat)
        while len(pending):
            entry = self._slots[slot[pending]]
            same = np.flatnonzero((entry >> _32 == flat[pending] & _LOW) & (entry != 0))
            if len(same):
                number = (entry[same] & _LOW).astype(np.int64) - 1
                true = self._records()["keys"][number, pending[same] % KEYS] == flat[pending[same]]
                found[pending[same[true]]] = number[true]
            pending = pending[(entry != 0) & (found[pending] < 0)]
            slot[pending] = (slot[pending] + 1) % len(self._slots)

    def _slots_needed(self, slots: int) -> int:
        """`slots`, doubled until the documents leave enough of them empty."""
        while self.count * KEYS > LOAD * slots:
            slots *= 2
        return slots

    def _fill(self, batches: Callable[[], Iterable[tuple[int, np.ndarray]]]) -> None:
        """Put the records of the batches into the table, which is large enough."""
        for first in range(0, len(self._slots), SECTION):
            for begin, records in batches():
                flat = records["keys"].reshape(-1)
                home = self._home(flat)
                self._insert(begin, flat, np.flatnonzero((home >= first) & (home < first + SECTION)))
                # Records that keys were compared with are mapped again when they are needed.
                self._mapped = np.empty(0, dtype=RECORD)
            self._release_pages()

    def _insert(self, begin: int, keys: np.ndarray, inside: np.ndarray) -> None:
        """Enter the keys at the indices `inside`; the first of `keys` belongs to document `begin`."""
        # Of documents with the same key the first counts.
        flat, earliest = np.unique(keys[inside], return_index=True)
        at = inside[earliest]
        value = (flat & _LOW) << _32 | (begin + at // KEYS + 1).astype(np.uint64)
        pending = np.arange(len(flat))
        slot = self._home(flat)
        while len(pending):
            entry = self._slots[slot[pending]]
            empty = np.flatnonzero(entry == 0)
            # One of several keys gets an empty slot; the others probe further.
            won = empty[np.unique(slot[pending[empty]], return_index=True)[1]]
            self._slots[slot[pending[won]]] = value[pending[won]]
            done = np.zeros(len(pending), dtype=bool)
            done[won] = True
            same = np.flatnonzero((entry >> _32 == flat[pending] & _LOW) & (entry != 0))
            if len(same):
                number = (entry[same] & _LOW).astype(np.int64) - 1
                known = self._records()["keys"][number, at[pending[same]] % KEYS]
                done[same] = known == flat[pending[same]]
            pending = pending[~done]
            slot[pending] = (slot[pending] + 1) % len(self._slots)

    def _release_pages(self) -> None:
        """Give the mapped pages back; they stay in the system's cache, and the file has what they hold."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        self._mapped = np.empty(0, dtype=RECORD)
