"""Writing one token stream: documents appended to files of bounded size, cut back to any former state.

Files only ever grow until `StreamWriter.restore` cuts them, so the sizes in a journal are enough to return to
the moment at which the journal was written. The hashes in it say whether the files are still what they were.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from braingpt.data.shards.manifest import (
    Count,
    Sha256,
    ShardFile,
    Split,
    StreamName,
    TokenDtype,
    TokenStream,
    sha256_of,
)
from braingpt.errors import Failure

# Bytes beyond which a stream continues in a new file.
FILE_BYTES = 256 * 1024 * 1024
# Bytes that are hashed at once.
_BLOCK = 1 << 20


class FileState(BaseModel):
    """A token file in a journal: its tokens, and the hash of these."""

    model_config = ConfigDict(extra="forbid")

    tokens: Count
    sha256: Sha256


class StreamState(BaseModel):
    """A stream in a journal: its counts and files, of which one without tokens is not there."""

    model_config = ConfigDict(extra="forbid")

    split: Split
    language: StreamName
    source: StreamName
    documents: Count
    tokens: Count
    bytes: Count
    files: list[FileState]

    def problem(self, root: Path, dtype: TokenDtype) -> str | None:
        """What the files under `root` lack of this state, in words; None where they hold it."""
        if self.tokens != sum(file.tokens for file in self.files):
            return f"{self.language} from {self.source} has another number of tokens than its files"
        for number, file in enumerate(self.files):
            path = stream_file(root, self.split, self.language, self.source, number)
            size = file.tokens * np.dtype(dtype).itemsize
            if file.tokens and (not path.is_file() or path.stat().st_size < size):
                return f"{path.name} is shorter than it was"
            if file.tokens and prefix_hash(path, size).hexdigest() != file.sha256:
                return f"{path.name} does not hold what was written"
        return None


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


def stream_file(root: Path, split: Split, language: str, source: str, number: int) -> Path:
    """The file of a stream with this number."""
    return root / split / f"{language}-{source}-{number:05}.bin"


def prefix_hash(path: Path, size: int) -> "hashlib._Hash":
    """SHA-256 of the first `size` bytes of a file, which may be updated with what follows them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    return digest


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
        # Tokens in each file, and their hashes: one that grows, a finished one, or None after a cut.
        self._sizes: list[int] = []
        self._hashes: list[hashlib._Hash | str | None] = []
        self._file: IO[bytes] | None = None
        # Numbers of the files that are not on the disk yet.
        self._changed: set[int] = set()

    @property
    def files(self) -> int:
        """Number of files, those included whose tokens were moved to another stream."""
        return len(self._sizes)

    def path(self, number: int) -> Path:
        """The stream's file with this number."""
        return stream_file(self.root, self.split, self.language, self.source, number)

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> Place:
        """Append one document's tokens. A document is never split over two files."""
        # A file of size 0 was moved to another stream and is still there until `restore`.
        if not self._sizes or not self._sizes[-1] or self._sizes[-1] + len(ids) > self._file_tokens:
            self._close()
            self._sizes.append(0)
            self._hashes.append(hashlib.sha256())
        digest = self._hash(len(self._sizes) - 1)
        if self._file is None:
            self._file = self.path(len(self._sizes) - 1).open("ab", buffering=1 << 20)
        raw = np.asarray(ids, dtype=self.dtype).tobytes()
        self._file.write(raw)
        digest.update(raw)
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
            "files": [
                {"tokens": size, "sha256": self._hex(number)} for number, size in enumerate(self._sizes)
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take the counts of a state, and cut the files back to its sizes; a file of size 0 is removed.

        The files must hold the state (`StreamState.problem`).
        """
        self.documents, self.tokens, self.bytes = state["documents"], state["tokens"], state["bytes"]
        self._sizes = [file["tokens"] for file in state["files"]]
        self._hashes = [file["sha256"] for file in state["files"]]
        for number, size in enumerate(self._sizes):
            if size:
                os.truncate(self.path(number), size * self.dtype.itemsize)
                self._changed.add(number)
            else:
                self.path(number).unlink(missing_ok=True)

    def _hash(self, number: int) -> "hashlib._Hash":
        """The hash of the tokens that count in a file, to be updated; read from the file where needed."""
        known = self._hashes[number]
        if known is None or isinstance(known, str):
            self._flush()
            size = self._sizes[number] * self.dtype.itemsize
            digest = prefix_hash(self.path(number), size) if size else hashlib.sha256()
            if known is not None and digest.hexdigest() != known:
                raise self._changed_on_disk(number)
            self._hashes[number] = known = digest
        return known

    def _hex(self, number: int) -> str:
        """The hash of the tokens that count in a file."""
        known = self._hashes[number]
        return known if isinstance(known, str) else self._hash(number).hexdigest()

    def _changed_on_disk(self, number: int) -> Failure:
        return Failure(
            f"{self.path(number)} does not hold what was written to it; check the disk, then repeat"
        )

    def move_all_to(self, other: "StreamWriter") -> None:
        """Write all documents to the end of `other` and count none from now on; the files stay until the
        state is restored.
        """
        for number, size in enumerate(self._sizes):
            other.add(self.read(Place(number, 0, size)), 0)
        other.documents += self.documents - len(self._sizes)
        other.bytes += self.bytes
        self.documents = self.tokens = self.bytes = 0
        self._sizes, self._hashes = [0] * len(self._sizes), [None] * len(self._sizes)

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
        self._hashes[-1] = None
        self.tokens -= cut
        self.bytes -= text_bytes

    def manifest_entry(self) -> TokenStream:
        """The closed stream as the manifest names it. Failure where a file is not what was written."""
        files = []
        for number, size in enumerate(self._sizes):
            if not size:
                continue
            path = self.path(number)
            found = sha256_of(path)
            if found != self._hex(number):
                raise self._changed_on_disk(number)
            name = path.relative_to(self.root).as_posix()
            files.append(ShardFile(path=name, tokens=size, sha256=found))
        return TokenStream(
            split=self.split,
            language=self.language,
            source=self.source,
            documents=self.documents,
            tokens=self.tokens,
            bytes=self.bytes,
            files=files,
        )
