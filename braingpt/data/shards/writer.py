"""Writing a prepared folder: token streams in a work folder beside it, which give it its name only when
everything is on the disk.

    .korean.partial/folder/         what will become data/korean
    .korean.partial/journal.json    how far the work is (`journal.py`), with what else the pipeline keeps for
    itself
    .korean.partial/lock            held by the process at work

A folder is there whole or not at all. Files only ever grow, and `restore` cuts them back to the sizes a
journal names, so that work which was killed goes on from there; even the last step, which moves tokens
between the splits, is done by writing first, naming the sizes in the journal, and cutting then.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from braingpt.data.dedup.index import LOG
from braingpt.data.shards.manifest import NAME, SPLITS, Manifest, ShardFile, TokenStream, sha256_of
from braingpt.errors import UserError

JOURNAL = "journal.json"
# a stream goes on in a new file beyond this
FILE_BYTES = 256 * 1024 * 1024


class Place(NamedTuple):
    """Where a document's tokens lie: the file's number within its stream, the first token's index in it, how
    many.
    """

    file: int
    at: int
    length: int


class StreamWriter:
    """One stream's files under `root`, appended to a document at a time."""

    def __init__(
        self, root: Path, split: str, language: str, source: str, dtype: str, file_bytes: int = FILE_BYTES
    ) -> None:
        self.root, self.split, self.language, self.source = root, split, language, source
        self.dtype = np.dtype(dtype).newbyteorder("<")
        # tokens a file
        self.limit = max(1, file_bytes // self.dtype.itemsize)
        self.documents = self.tokens = self.bytes = 0
        # tokens in each file
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        # files not yet synced
        self._changed: set[int] = set()

    def path(self, number: int) -> Path:
        """The stream's file of that number."""
        return self.root / self.split / f"{self.language}-{self.source}-{number:05}.bin"

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> Place:
        """Append one document's tokens. A document is never split over two files."""
        # 0: given away, but still there
        if not self._sizes or not self._sizes[-1] or self._sizes[-1] + len(ids) > self.limit:
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
        """The tokens at a place; `flush` first."""
        offset = place.at * self.dtype.itemsize
        return np.fromfile(self.path(place.file), dtype=self.dtype, count=place.length, offset=offset)

    def flush(self) -> None:
        """What was added can be read."""
        if self._file is not None:
            self._file.flush()

    def sync(self) -> None:
        """What was added is on the disk."""
        self.flush()
        for number in self._changed:
            with self.path(number).open("r+b") as file:
                os.fsync(file.fileno())
        self._changed = set()

    def close(self) -> None:
        """Sync, and let the file go."""
        self.sync()
        self._close()

    def abandon(self) -> None:
        """Let the file go, whether or not what is buffered can still be written."""
        with contextlib.suppress(OSError):
            self._close()

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
        """Take the counts of a state, and cut the files back to its sizes; one of size 0 goes."""
        self.documents, self.tokens, self.bytes = state["documents"], state["tokens"], state["bytes"]
        self._sizes = list(state["sizes"])
        for number, size in enumerate(self._sizes):
            if size:
                os.truncate(self.path(number), size * self.dtype.itemsize)
            else:
                self.path(number).unlink(missing_ok=True)

    def give_all(self, other: "StreamWriter") -> None:
        """Write all documents to the end of `other`, and be empty from now on; the files stay until the state
        is restored.
        """
        self.flush()
        for number, size in enumerate(self._sizes):
            other.add(self.read(Place(number, 0, size)), 0)
        other.documents += self.documents - len(self._sizes)
        other.bytes += self.bytes
        self.documents = self.tokens = self.bytes = 0
        self._sizes = [0] * len(self._sizes)

    def give_tail(self, other: "StreamWriter", share: float, token_bytes_V: np.ndarray) -> None:
        """Write the last `share` of the last file to `other`: at least one token and never all.

        Counts leave the tokens out from now on.
        """
        self.flush()
        size = self._sizes[-1]
        cut = min(max(1, round(share * size)), size - 1)
        tail = self.read(Place(len(self._sizes) - 1, size - cut, cut))
        text_bytes = int(token_bytes_V[tail].sum())
        other.add(tail, text_bytes)
        # the end of a document that is counted where it begins
        other.documents -= 1
        self._sizes[-1] -= cut
        self.tokens -= cut
        self.bytes -= text_bytes

    def record(self) -> TokenStream:
        """The closed stream's entry in the manifest."""
        files = [
            ShardFile(
                path=str(self.path(n).relative_to(self.root).as_posix()),
                tokens=size,
                sha256=sha256_of(self.path(n)),
            )
            for n, size in enumerate(self._sizes)
            if size
        ]
        return TokenStream(
            **{key: value for key, value in self.state().items() if key != "sizes"}, files=files
        )


class FolderWriter:
    """The work folder of one preparation, and all its streams.

    A context manager: what is not published is removed, unless `keep` is set.

    It is set from the first moment on where a journal lies there: the work of hours must not be lost to a
    second Ctrl-C, or to a file that cannot be opened any more.
    """

    def __init__(self, out: Path, dtype: str, file_bytes: int = FILE_BYTES) -> None:
        self.out, self.dtype, self.file_bytes = out, dtype, file_bytes
        self.work = out.parent / f".{out.name}.partial"
        self.root = self.work / "folder"
        self.streams: list[StreamWriter] = []
        self.keep = False
        self._by_key: dict[tuple[str, str, str], int] = {}
        # folders made on the way, to be unmade
        self._made: list[Path] = []
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> "FolderWriter":
        # innermost first
        self._made = [parent for parent in self.out.parents if not parent.exists()]
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = (self.work / "lock").open("ab")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot write in {self.out.parent}: {error.strerror}; --out DIR writes elsewhere"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its former holder has just removed it, and the work folder with it
            if not os.fstat(self._lock.fileno()).st_nlink:
                raise BlockingIOError
        except OSError:
            self._lock.close()
            raise UserError(
                f"{self.out} is being prepared by another process; wait for it, or choose another --out"
            ) from None
        self.keep = (self.work / JOURNAL).is_file()
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in self.streams:
            stream.abandon()
        if not self.keep:
            shutil.rmtree(self.work, ignore_errors=True)
        if self._lock:
            self._lock.close()
        for parent in self._made:
            # holds what was published or kept
            with contextlib.suppress(OSError):
                parent.rmdir()

    def add(
        self, split: str, language: str, source: str, ids: Sequence[int] | np.ndarray, text_bytes: int
    ) -> tuple[int, Place]:
        """Append a document's tokens to its stream; the stream's number, and where they lie in it."""
        number = self._number(split, language, source)
        return number, self.streams[number].add(ids, text_bytes)

    def _number(self, split: str, language: str, source: str) -> int:
        key = (split, language, source)
        if key not in self._by_key:
            self._by_key[key] = len(self.streams)
            (self.root / split).mkdir(parents=True, exist_ok=True)
            self.streams.append(StreamWriter(self.root, split, language, source, self.dtype, self.file_bytes))
        return self._by_key[key]

    def flush(self) -> None:
        """What was added can be read back."""
        for stream in self.streams:
            stream.flush()

    def sync(self) -> None:
        """What was added is on the disk, for a journal to name its size."""
        for stream in self.streams:
            stream.sync()
        for split in SPLITS:
            if (self.root / split).is_dir():
                sync_folder(self.root / split)

    def state(self) -> list[dict[str, Any]]:
        """The streams' counts and sizes as plain data."""
        return [stream.state() for stream in self.streams]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Be as in a former state: streams in its order, files cut to its sizes, nothing else in the folder."""
        for stream in self.streams:
            stream.close()
        self.streams, self._by_key = [], {}
        for state in states:
            self.streams[self._number(state["split"], state["language"], state["source"])].restore(state)
        known = {
            stream.path(number) for stream in self.streams for number in range(len(stream.state()["sizes"]))
        }
        for path in sorted(self.root.rglob("*")) if self.root.exists() else []:
            if path.is_file() and path not in known:
                path.unlink()

    def hold_out(self, share: float, token_bytes_V: np.ndarray) -> None:
        """Give every language both splits, which content hashes alone cannot promise when its documents are
        few.

        A language with nothing to train on gets its validation documents back; one with nothing held out
        gives the last `share` of the tokens of its last stream, be it the end of its only document. Files are
        only written to: `restore(state())` cuts what was given.
        """
        if not share:
            return
        for language in dict.fromkeys(stream.language for stream in self.streams if stream.documents):
            train, validation = (self._holding(split, language) for split in SPLITS)
            if not train:
                for stream in validation:
                    target = self.streams[self._number("train", language, stream.source)]
                    stream.give_all(target)
                train, validation = self._holding("train", language), []
            if not validation:
                last = train[-1]
                last.give_tail(
                    self.streams[self._number("validation", language, last.source)], share, token_bytes_V
                )

    def _holding(self, split: str, language: str) -> list[StreamWriter]:
        return [
            stream
            for stream in self.streams
            if (stream.split, stream.language) == (split, language) and stream.tokens
        ]

    def close(self) -> list[TokenStream]:
        """Sync all streams; their entries for the manifest, in the order of splits, languages and sources
        met.
        """
        for stream in self.streams:
            stream.close()
        held = [stream for stream in self.streams if stream.tokens]
        return [stream.record() for stream in sorted(held, key=lambda stream: SPLITS.index(stream.split))]

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest and give the folder its name, in place of a former preparation."""
        for split in SPLITS:
            (self.root / split).mkdir(exist_ok=True)
        path = self.root / NAME
        with path.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.root)
        former = self.work / "former"
        if self.out.exists():
            os.replace(self.out, former)
        try:
            os.replace(self.root, self.out)
        except OSError:
            if former.exists():
                os.replace(former, self.out)
            raise
        sync_folder(self.out.parent)
        self.keep = False


def clear_up(out: Path) -> None:
    """Remove the work folder of a process that was killed between giving `out` its name and removing it: a
    former `out` may lie in it.
    """
    writer = FolderWriter(out, "uint16")
    if writer.work.is_dir() and not writer.root.exists():
        # at work by another process: that one's to remove
        with contextlib.suppress(UserError), writer:
            writer.keep = False


def check_replaceable(out: Path) -> None:
    """UserError when `out` holds anything that a preparation did not write, since it would be lost."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder of its own; choose another --out")
    known = (NAME, "tokenizer", LOG, *SPLITS)
    strangers = (
        sorted(entry.name for entry in out.iterdir() if entry.name not in known) if out.exists() else []
    )
    if strangers:
        raise UserError(f"{out} holds other things ({', '.join(strangers[:3])}); choose another --out")


def sync_folder(folder: Path) -> None:
    """Names in the folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
