"""Writing a prepared folder: token streams in a work folder beside it, which give it its name only when
everything is on the disk.

    .korean.partial/folder/         what will become data/korean
    .korean.partial/journal.json    how far the work is (`prepare/journal.py`)
    .korean.partial/documents.log   keys and places of the documents (`dedup/index.py`)
    .korean.partial/lock            held by the process at work

A folder is published complete or not at all: where there was one before, both exchange their names in one
step (where the system can; otherwise the former one is for a moment at `.korean.partial/former`). Files only
ever grow, and `restore` cuts them back to the sizes in a journal, from where killed work continues. The last
step, which moves tokens between the splits, also writes first, then names the sizes in the journal, and cuts
last.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from braingpt.data.shards.manifest import (
    DOCUMENT_LOG,
    NAME,
    SPLITS,
    Manifest,
    Split,
    TokenDtype,
    TokenStream,
    manifest_text,
    sha256_of,
)
from braingpt.data.shards.stream_writer import FILE_BYTES, Place, StreamWriter
from braingpt.errors import UserError
from braingpt.utils.atomic_write import flush_folder, write_atomically
from braingpt.utils.scratch import exchange

# Names in the work folder: of the journal; of the preparation that is being replaced; of what is deleted; of
# the hash of the manifest that is about to be published.
JOURNAL, FORMER, DISCARDED, PUBLISHING = "journal.json", "former", "discarded", "publishing"


class FolderWriter:
    """The work folder of one preparation, and all its streams.

    The writer is a context manager: unpublished work is removed unless `keep` is set. `keep` is set from the
    start where there is a journal, so that a second Ctrl-C, or a file that can no longer be opened, does not
    cost the work of hours.

    Attributes:
        out: The folder to be published.
        dtype: Type of a token in the files.
        work: The work folder beside `out`.
        root: What will become `out`.
        streams: The streams written to, by their number.
        keep: Whether the work folder stays when the context ends.
    """

    def __init__(self, out: Path, dtype: TokenDtype, file_bytes: int = FILE_BYTES) -> None:
        self.out, self.file_bytes = out, file_bytes
        self.dtype: TokenDtype = dtype
        self.work = out.parent / f".{out.name}.partial"
        self.root = self.work / "folder"
        self.streams: list[StreamWriter] = []
        self.keep = False
        self._by_key: dict[tuple[str, str, str], int] = {}
        # Folders above `out` that were made here, the innermost first; empty ones are removed at the end.
        self._made: list[Path] = []
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> "FolderWriter":
        self._made = [parent for parent in self.out.parents if not parent.exists()]
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = (self.work / "lock").open("ab")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot write in {self.out.parent}: {error.strerror}; choose another --out"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former holder may have removed it by now, and the work folder with it.
            if not os.fstat(self._lock.fileno()).st_nlink:
                raise BlockingIOError
        except OSError:
            self._lock.close()
            raise UserError(
                f"{self.out} is being prepared by another process; wait for it, or choose another --out"
            ) from None
        self._settle_former()
        self.keep = (self.work / JOURNAL).is_file()
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in self.streams:
            stream.abandon()
        if not self.keep:
            self._discard_work()
        if self._lock:
            self._lock.close()
        for parent in self._made:
            # A folder that holds what was published or kept stays.
            with contextlib.suppress(OSError):
                parent.rmdir()

    def _settle_former(self) -> None:
        """End what a process that was killed while it replaced a preparation has begun."""
        former = self.work / FORMER
        if former.exists() and not os.path.lexists(self.out):
            # It has taken the former one away, and not yet given the new one its name.
            os.replace(former, self.out)
        elif former.exists():
            self._delete(former)
        publishing, manifest = self.work / PUBLISHING, self.out / NAME
        if publishing.is_file():
            if manifest.is_file() and publishing.read_text("utf-8", "replace") == sha256_of(manifest):
                # The new folder has its name. What stands at its former place is the old one.
                (self.work / JOURNAL).unlink(missing_ok=True)
                if self.root.exists():
                    self._delete(self.root)
            publishing.unlink()
        shutil.rmtree(self.work / DISCARDED, ignore_errors=True)

    def _delete(self, folder: Path) -> None:
        """Delete a folder in the work folder under another name, so that no half of it is ever used."""
        discarded = self.work / DISCARDED
        shutil.rmtree(discarded, ignore_errors=True)
        os.replace(folder, discarded)
        shutil.rmtree(discarded, ignore_errors=True)

    def _discard_work(self) -> None:
        """Remove the work folder; first the journal, which would vouch for files that are gone."""
        with contextlib.suppress(OSError):
            (self.work / JOURNAL).unlink(missing_ok=True)
            if (self.work / FORMER).exists():
                self._delete(self.work / FORMER)
        shutil.rmtree(self.work, ignore_errors=True)

    def add(
        self, split: Split, language: str, source: str, ids: Sequence[int] | np.ndarray, text_bytes: int
    ) -> tuple[int, Place]:
        """Append a document's tokens to its stream; the stream's number, and where they lie in it."""
        number = self._number(split, language, source)
        return number, self.streams[number].add(ids, text_bytes)

    def read_back(self, stream: int, place: Place) -> np.ndarray:
        """The tokens of a document that was added."""
        return self.streams[stream].read(place)

    def _number(self, split: Split, language: str, source: str) -> int:
        key = (split, language, source)
        if key not in self._by_key:
            self._by_key[key] = len(self.streams)
            (self.root / split).mkdir(parents=True, exist_ok=True)
            self.streams.append(StreamWriter(self.root, split, language, source, self.dtype, self.file_bytes))
        return self._by_key[key]

    def sync(self) -> None:
        """Flush everything added so far to the disk, before a journal names its size."""
        for stream in self.streams:
            stream.sync()
        for split in SPLITS:
            if (self.root / split).is_dir():
                flush_folder(self.root / split)

    def state(self) -> list[dict[str, Any]]:
        """The streams' counts and sizes as plain data, for `restore`."""
        return [stream.state() for stream in self.streams]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Return to a former state: its streams, files cut to its sizes, nothing else in the folder."""
        for stream in self.streams:
            stream.close()
        self.streams, self._by_key = [], {}
        for state in states:
            self.streams[self._number(state["split"], state["language"], state["source"])].restore(state)
        known = {stream.path(number) for stream in self.streams for number in range(stream.files)}
        for path in sorted(self.root.rglob("*")) if self.root.exists() else []:
            if path.is_file() and path not in known:
                path.unlink()

    def hold_out(self, share: float, token_bytes_V: np.ndarray) -> None:
        """Give every language both splits, which content hashes alone cannot guarantee when documents are
        few.

        A language with nothing to train on gets its validation documents back; one with nothing held out
        gives the last `share` of the tokens of its last stream, be it the end of its only document. Files are
        only written to: `restore(state())` cuts what was moved.

        Args:
            share: Share of the tokens, 0 to hold nothing out.
            token_bytes_V: Bytes of text that each token represents.
        """
        if not share:
            return
        for language in dict.fromkeys(stream.language for stream in self.streams if stream.documents):
            train, validation = (self._holding(split, language) for split in SPLITS)
            if not train:
                for stream in validation:
                    target = self.streams[self._number("train", language, stream.source)]
                    stream.move_all_to(target)
                train, validation = self._holding("train", language), []
            if not validation:
                last = train[-1]
                target = self.streams[self._number("validation", language, last.source)]
                last.move_tail_to(target, share, token_bytes_V)

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
        return [
            stream.manifest_entry() for stream in sorted(held, key=lambda stream: SPLITS.index(stream.split))
        ]

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest and give the folder its name, instead of a former preparation.

        All files are on the disk before the folder has its name.
        """
        for split in SPLITS:
            (self.root / split).mkdir(exist_ok=True)
            flush_folder(self.root / split)
        write_atomically(self.root / NAME, manifest_text(manifest))
        for parent in self._made:
            flush_folder(parent.parent)
        if self.out.exists():
            write_atomically(self.work / PUBLISHING, sha256_of(self.root / NAME))
            if not exchange(self.root, self.out):
                self._replace()
            # First the journal, which would vouch for what is now the former folder.
            (self.work / JOURNAL).unlink(missing_ok=True)
        else:
            os.replace(self.root, self.out)
        flush_folder(self.out.parent)
        self.keep = False

    def _replace(self) -> None:
        """Give the folder its name in two steps, where two names cannot be exchanged in one."""
        former = self.work / FORMER
        os.replace(self.out, former)
        try:
            os.replace(self.root, self.out)
        except OSError:
            os.replace(former, self.out)
            raise


def settle_work(out: Path) -> None:
    """End what a process that was killed left beside `out`: the folder that it was replacing gets its name
    back, and what cannot be continued is removed. Unfinished work with a journal stays.
    """
    writer = FolderWriter(out, "uint16")
    if writer.work.is_dir():
        # Where another process is at work, the folder is for that one.
        with contextlib.suppress(UserError), writer:
            # A journal without its folder: the folder was published as `out`.
            writer.keep = writer.keep and (writer.root.exists() or not out.exists())


def check_replaceable(out: Path) -> None:
    """UserError when `out` holds anything that a preparation did not write, since it would be lost."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder of its own; choose another --out")
    known = (NAME, "tokenizer", DOCUMENT_LOG, *SPLITS)
    entries = out.iterdir() if out.exists() else ()
    others = sorted(entry.name for entry in entries if entry.name not in known)
    if others:
        raise UserError(f"{out} holds other files ({', '.join(others[:3])}); choose another --out")
