"""Writing a prepared folder: token streams into a temporary sibling folder, which takes its name only when everything is on the disk.

A folder is there whole or not at all. An interrupted preparation removes its temporary folder; one that was killed leaves it, and the next
preparation of the same folder clears it away.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from braingpt.data.manifest import NAME, SPLITS, Manifest, ShardFile, Stream, sha256_of
from braingpt.errors import UserError

FILE_BYTES = 256 * 1024 * 1024  # a stream goes on in a new file beyond this


class StreamWriter:
    """One stream's files under `root`, appended to a document at a time."""

    def __init__(self, root: Path, split: str, language: str, source: str, dtype: str, file_bytes: int = FILE_BYTES) -> None:
        self.root, self.split, self.language, self.source = root, split, language, source
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.limit = max(1, file_bytes // self.dtype.itemsize)  # tokens a file
        self.documents = self.tokens = self.bytes = 0
        self._sizes: list[int] = []  # tokens in each file
        self._file: IO[bytes] | None = None

    def path(self, number: int) -> Path:
        """The stream's file of that number."""
        return self.root / self.split / f"{self.language}-{self.source}-{number:05}.bin"

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int) -> None:
        """Append one document's tokens. A document is never split over two files."""
        if self._file is None or self._sizes[-1] + len(ids) > self.limit:
            self.close()
            self._file = self.path(len(self._sizes)).open("wb", buffering=1 << 20)
            self._sizes.append(0)
        self._file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self._sizes[-1] += len(ids)
        self.tokens += len(ids)
        self.documents += 1
        self.bytes += text_bytes

    def close(self) -> None:
        """Flush what is written to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def move(self, split: str) -> None:
        """Give the whole closed stream to another split."""
        before = [self.path(number) for number in range(len(self._sizes))]
        self.split = split
        for number, path in enumerate(before):
            os.replace(path, self.path(number))

    def take_tail(self, share: float, token_bytes_V: np.ndarray) -> tuple[np.ndarray, int]:
        """Cut the last `share` of the closed stream's last file off: its tokens, at least one and never all, and their bytes of text."""
        path = self.path(len(self._sizes) - 1)
        ids = np.fromfile(path, dtype=self.dtype)
        cut = min(max(1, round(share * len(ids))), len(ids) - 1)
        with path.open("r+b") as file:
            file.truncate((len(ids) - cut) * self.dtype.itemsize)
            os.fsync(file.fileno())
        self._sizes[-1] -= cut
        self.tokens -= cut
        tail = ids[len(ids) - cut :]
        text_bytes = int(token_bytes_V[tail].sum())
        self.bytes -= text_bytes
        return tail, text_bytes

    def record(self) -> Stream:
        """The closed stream's entry in the manifest."""
        files = [
            ShardFile(path=str(self.path(n).relative_to(self.root).as_posix()), tokens=size, sha256=sha256_of(self.path(n)))
            for n, size in enumerate(self._sizes)
        ]
        return Stream(
            split=self.split,
            language=self.language,
            source=self.source,
            documents=self.documents,
            tokens=self.tokens,
            bytes=self.bytes,
            files=files,
        )


class FolderWriter:
    """The temporary folder of one preparation, and all its streams. A context manager: what is not published is removed."""

    def __init__(self, out: Path, dtype: str, file_bytes: int = FILE_BYTES) -> None:
        self.out, self.dtype, self.file_bytes = out, dtype, file_bytes
        self.root = out.parent / f".{out.name}.{os.getpid()}.partial"
        self.streams: dict[tuple[str, str, str], StreamWriter] = {}
        self._made: list[Path] = []  # folders made on the way, to be unmade

    def __enter__(self) -> "FolderWriter":
        self._made = [parent for parent in self.out.parents if not parent.exists()]  # innermost first
        for stale in self.out.parent.glob(f".{self.out.name}.*.partial"):
            if not _alive(stale):
                shutil.rmtree(stale, ignore_errors=True)
        for split in SPLITS:
            (self.root / split).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in self.streams.values():
            if stream._file is not None:
                stream._file.close()
        shutil.rmtree(self.root, ignore_errors=True)
        for parent in self._made:
            with contextlib.suppress(OSError):  # holds what was published
                parent.rmdir()

    def add(self, split: str, language: str, source: str, ids: Sequence[int] | np.ndarray, text_bytes: int) -> None:
        """Append a document's tokens to its stream."""
        key = (split, language, source)
        if key not in self.streams:
            self.streams[key] = StreamWriter(self.root, split, language, source, self.dtype, self.file_bytes)
        self.streams[key].add(ids, text_bytes)

    def hold_out(self, share: float, token_bytes_V: np.ndarray) -> None:
        """Give every language both splits, which content hashes alone cannot promise when its documents are few.

        A language with nothing to train on gets its validation documents back; one with nothing held out gives the last `share` of the
        tokens of its last stream, be it the end of its only document.
        """
        if not share:
            return
        for language in dict.fromkeys(language for _, language, _ in self.streams):
            train, validation = ([s for s in self.streams.values() if (s.split, s.language) == (split, language)] for split in SPLITS)
            if train and validation:
                continue
            for stream in train or validation:
                stream.close()
                if not train:
                    stream.move("train")
            last = (train or validation)[-1]
            tail, text_bytes = last.take_tail(share, token_bytes_V)
            held = StreamWriter(self.root, "validation", language, last.source, self.dtype, self.file_bytes)
            held.add(tail, text_bytes)
            held.documents = 0  # the end of a document that is counted where it begins
            self.streams = {(s.split, s.language, s.source): s for s in [*self.streams.values(), held]}

    def close(self) -> list[Stream]:
        """Flush all streams; their entries for the manifest, in the order of splits, languages and sources met."""
        for stream in self.streams.values():
            stream.close()
        return [stream.record() for stream in sorted(self.streams.values(), key=lambda stream: SPLITS.index(stream.split))]

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest and give the folder its name, in place of a former preparation."""
        path = self.root / NAME
        with path.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.root)
        former = self.out.parent / f".{self.out.name}.{os.getpid()}.former.partial"
        if self.out.exists():
            os.replace(self.out, former)
        try:
            os.replace(self.root, self.out)
        except OSError:
            if former.exists():
                os.replace(former, self.out)
            raise
        _sync_folder(self.out.parent)
        shutil.rmtree(former, ignore_errors=True)


def check_replaceable(out: Path) -> None:
    """UserError when `out` holds anything that a preparation did not write, since it would be lost."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder of its own; choose another --out")
    strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in (NAME, "tokenizer", *SPLITS)) if out.exists() else []
    if strangers:
        raise UserError(f"{out} holds other things ({', '.join(strangers[:3])}); choose another --out")


def _alive(partial: Path) -> bool:
    """Whether the process that wrote this temporary folder still runs; its number stands in the name."""
    pid = next((int(part) for part in reversed(partial.name.split(".")) if part.isdigit()), 0)
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
