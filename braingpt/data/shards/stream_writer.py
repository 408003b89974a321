"""Writing one token stream: documents appended to files of bounded size, cut back to any former state.

Files only ever grow until `StreamWriter.restore` cuts them, so the sizes in a journal are enough to return to
the moment at which the journal was written.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from braingpt.data.shards.manifest import ShardFile, Split, TokenStream, sha256_of

# Bytes beyond which a stream continues in a new file.
FILE_BYTES = 256 * 1024 * 1024


class Place(NamedTuple):
    """The place of a document's tokens.

    Attributes:
        file: Number of the file within its stream.
        at: Index of the first token in the file.
        length: Number of tokens.
    """

    file: int
    at: int
    length: int


class StreamWriter:
    """One stream's files under `root`, appended to a document at a time."""

    def __init__(
        self, root: Path, split: Split, language: str, source: str, dtype: str, file_bytes: int = FILE_BYTES
    ) -> None:
        self.root = root
        self.split: Split = split
        self.language, self.source = language, source
        self.dtype = np.dtype(dtype).newbyteorder("<")
        # Tokens that a file may hold; a longer document has a file of its own.
        self._file_tokens = max(1, file_bytes // self.dtype.itemsize)
        self.documents = self.tokens = self.bytes = 0
        # Tokens in each file.
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        # Numbers of the files that are not on the disk yet.
        self._changed: set[int] = set()

    def path(self, number: int) -> Path:
        """The stream's file with this number."""
        return self.root / self.split / f"{self.language}-{self.source}-{number:05}.bin"

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> Place:
        """Append one document's tokens. A document is never split over two files."""
        # A file of size 0 was moved to another stream and is still there until `restore`.
        if not self._sizes or not self._sizes[-1] or self._sizes[-1] + len(ids) > self._file_tokens:
            self._close()
            self._sizes.append(0)
        if self._file is None:
            self._file = self.path(len(self._sizes) - 1).open("ab", buffering=1 << 20)
        self._file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self._changed.add(len(self._sizes) - 1)
        place = Place(len(self._sizes) - 1, self._sizes[-1], len(ids))
        self._sizes[-1] += len(ids)
        self.tokens += len(ids)
        self.documents += 1
        self.bytes += text_bytes
        return place

    def read(self, place: Place) -> np.ndarray:
        """The tokens at a place."""
        self._flush()
        offset = place.at * self.dtype.itemsize
        return np.fromfile(self.path(place.file), dtype=self.dtype, count=place.length, offset=offset)

    def sync(self) -> None:
        """Flush everything added so far to the disk."""
        self._flush()
        for number in self._changed:
            with self.path(number).open("r+b") as file:
                os.fsync(file.fileno())
        self._changed = set()

    def close(self) -> None:
        """Sync, and close the file."""
        self.sync()
        self._close()

    def abandon(self) -> None:
        """Close the file, whether or not what is buffered can still be written."""
        with contextlib.suppress(OSError):
            self._close()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def state(self) -> dict[str, Any]:
        """Counts and file sizes as plain data."""
        return {
            "split": self.split,
            "language": self.language,
            "source": self.source,
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "sizes": list(self._sizes),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the counts of a state, and cut the files back to its sizes; a file of size 0 is removed."""
        self.documents, self.tokens, self.bytes = state["documents"], state["tokens"], state["bytes"]
        self._sizes = list(state["sizes"])
        for number, size in enumerate(self._sizes):
            if size:
                os.truncate(self.path(number), size * self.dtype.itemsize)
            else:
                self.path(number).unlink(missing_ok=True)

    def move_all_to(self, other: "StreamWriter") -> None:
        """Write all documents to the end of `other` and count none from now on; the files stay until the
        state is restored.
        """
        for number, size in enumerate(self._sizes):
            other.add(self.read(Place(number, 0, size)), 0)
        other.documents += self.documents - len(self._sizes)
        other.bytes += self.bytes
        self.documents = self.tokens = self.bytes = 0
        self._sizes = [0] * len(self._sizes)

    def move_tail_to(self, other: "StreamWriter", share: float, token_bytes_V: np.ndarray) -> None:
        """Write the last `share` of the last file to `other`: at least one token and never all.

        `token_bytes_V`: bytes of text that each token represents. From now on the counts leave these tokens
        out.
        """
        size = self._sizes[-1]
        cut = min(max(1, round(share * size)), size - 1)
        tail = self.read(Place(len(self._sizes) - 1, size - cut, cut))
        text_bytes = int(token_bytes_V[tail].sum())
        other.add(tail, text_bytes)
        # It is the end of a document, which is counted where it begins.
        other.documents -= 1
        self._sizes[-1] -= cut
        self.tokens -= cut
        self.bytes -= text_bytes

    def manifest_entry(self) -> TokenStream:
        """The closed stream as the manifest names it."""
        files = [
            ShardFile(
                path=self.path(number).relative_to(self.root).as_posix(),
                tokens=size,
                sha256=sha256_of(self.path(number)),
            )
            for number, size in enumerate(self._sizes)
            if size
        ]
        return TokenStream(
            split=self.split,
            language=self.language,
            source=self.source,
            documents=self.documents,
            tokens=self.tokens,
            bytes=self.bytes,
            files=files,
        )
