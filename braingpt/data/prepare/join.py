"""Parts of a preparation, made on several machines, put together as one prepared folder: near duplicates
across parts are dropped, as within a part.

Every part has kept the log of its index (`dedup/index.py`): the keys of each document and where its tokens
are. The parts are read in order, a document that an earlier part has is left out, and the others are copied.
Memory is that of the index, whatever the size of the parts.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from braingpt import __version__
from braingpt.data.dedup.deduplicator import Deduplicator
from braingpt.data.dedup.index import RECORD, Index
from braingpt.data.prepare.drop_counts import DropCounts, excerpt
from braingpt.data.prepare.journal import Journal
from braingpt.data.prepare.request import SMALL_VALIDATION, difference
from braingpt.data.shards.manifest import (
    DOCUMENT_LOG,
    FORMAT,
    Manifest,
    TokenDtype,
    TokenStream,
    check_ids,
    check_sizes,
    prepare_command,
    read_manifest,
    verify,
)
from braingpt.data.shards.writer import FolderWriter, check_replaceable, settle_work
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.utils.paths import check_folder

# Documents taken at once, and the tokens they may have together.
SLICE_DOCUMENTS = 4096
SLICE_TOKENS = 4 << 20


def join(
    folders: list[Path],
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Manifest, Tokenizer]:
    """Make one prepared folder of all the parts of one preparation.

    Args:
        folders: The parts, in any order.
        out: The folder to write.
        force: Whether an existing `out` is replaced.
        progress: Called with the share done, 0 to 1.

    Returns:
        The manifest of `out` and the tokenizer of the parts. An `out` that holds these parts stays as it is.

    Raises:
        UserError: The folders are not all the parts of one preparation, one of them is damaged, or `out`
            already exists.
        OSError: The disk is full.
    """
    check_folder(out)
    parts = _read_parts(folders)
    tokenizer = _check_files(parts)
    settle_work(out)
    if out.exists():
        check_replaceable(out)
        if not force and (manifest := _joined_before(out, parts)):
            return manifest, tokenizer
        if any(out.iterdir()) and not force:
            raise UserError(f"{out} already exists; --force replaces it, --out DIR writes elsewhere")
    first = parts[0][1]
    near = _near_duplicates(first)
    with FolderWriter(out, first.dtype) as writer:
        if writer.keep and not force:
            raise UserError(
                f"{writer.work} holds an interrupted preparation; "
                "finish it, discard it with --force, or choose another --out"
            )
        Journal(writer.work).remove()
        writer.keep = False
        writer.restore([])
        index = Index(writer.work)
        try:
            joiner = _Joiner(writer, Deduplicator(index, writer.read_back, near), tokenizer)
            for number, (folder, manifest) in enumerate(parts):
                for share in joiner.copy_part(folder, manifest):
                    progress((number + share) / len(parts))
        finally:
            index.close()
        if not any(stream.tokens for stream in writer.streams):
            raise UserError(f"the parts of '{first.name}' hold no documents; nothing was written")
        manifest = _finish(writer, parts, tokenizer, joiner.counts)
        writer.publish(manifest)
    return manifest, tokenizer


def copy_document_log(writer: FolderWriter, index: Index, streams: list[TokenStream]) -> str:
    """Copy the index's log into the folder of a part, its streams numbered as in the manifest.

    Returns:
        SHA-256 of the copy.
    """
    order = [(stream.split, stream.language, stream.source) for stream in streams]
    number_S = np.array(
        [order.index((stream.split, stream.language, stream.source)) for stream in writer.streams],
        dtype=np.uint16,
    )
    digest = hashlib.sha256()
    with (writer.root / DOCUMENT_LOG).open("wb") as file:
        for _, records in index.batches():
            records["stream"] = number_S[records["stream"]]
            file.write(raw := records.tobytes())
            digest.update(raw)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _finish(
    writer: FolderWriter,
    parts: list[tuple[Path, Manifest]],
    tokenizer: Tokenizer,
    counts: dict[str, DropCounts],
) -> Manifest:
    """Settle the splits, save the tokenizer, and describe the folder."""
    first = parts[0][1]
    given = first.parameters.get("validation")
    writer.hold_out(SMALL_VALIDATION if given is None else given, tokenizer.token_bytes())
    writer.sync()
    writer.restore(writer.state())
    streams = writer.close()
    tokenizer.save(writer.root / "tokenizer")
    return first.model_copy(
        update={
            "braingpt": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "format": FORMAT,
            "parameters": {**first.parameters, "part": None},
            "document_log": None,
            "revisions": _revisions(parts),
            "streams": streams,
            "filters": {source: one.report() for source, one in counts.items()},
        }
    )


def _read_parts(folders: list[Path]) -> list[tuple[Path, Manifest]]:
    """The parts in their order, all of them, of one preparation."""
    by_number: dict[int, tuple[Path, Manifest]] = {}
    count = 0
    for folder in folders:
        manifest = read_manifest(folder)
        part = manifest.parameters.get("part")
        if not part or not (folder / DOCUMENT_LOG).is_file():
            raise UserError(
                f"{folder} is not a part of a preparation; `braingpt data prepare NAME --part 1/8` makes one"
            )
        number, count = map(int, part.split("/"))
        if number in by_number:
            raise UserError(
                f"{folder} and {by_number[number][0]} are the same part, {part}; name each part once"
            )
        by_number[number] = (folder, manifest)
    if not by_number:
        raise UserError("there are no parts to join; name them: braingpt data join DIR... --out DIR")
    parts = [by_number[number] for number in sorted(by_number)]
    for folder, manifest in parts[1:]:
        # The times of files (`inputs`) differ from machine to machine.
        skipped = {"part": None, "inputs": None}
        changed = difference({**parts[0][1].parameters, **skipped}, {**manifest.parameters, **skipped})
        if changed or manifest.parameters["part"].split("/")[1] != str(count):
            raise UserError(
                f"{folder} was prepared with other parameters than {parts[0][0]} "
                f"({changed or 'another number of parts'}); join parts of one preparation only"
            )
        # The rules may differ from version to version.
        if manifest.braingpt != parts[0][1].braingpt:
            raise UserError(
                f"{folder} was prepared by braingpt {manifest.braingpt}, "
                f"{parts[0][0]} by {parts[0][1].braingpt}; prepare all parts with one version"
            )
    _revisions(parts)
    missing = [str(number) for number in range(1, count + 1) if number not in by_number]
    if missing:
        raise UserError(
            f"of {count} parts these are missing: {', '.join(missing[:10])}; prepare or name them"
        )
    return parts


def _check_files(parts: list[tuple[Path, Manifest]]) -> Tokenizer:
    """Read every byte of the parts, whose faults would be those of the whole; their tokenizer.

    UserError for a file that is not what was written.
    """
    for folder, manifest in parts:
        again = (
            f"prepare the part again: {prepare_command(folder)} --part {manifest.parameters['part']} --force"
        )
        tokenizer = Tokenizer.load(folder / "tokenizer")
        if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
            raise UserError(f"{folder / 'tokenizer'} is not the tokenizer of these tokens; {again}")
        if problems := verify(folder, manifest):
            raise UserError(f"{problems[0]}; {again}")
        if (folder / DOCUMENT_LOG).stat().st_size % RECORD.itemsize:
            raise UserError(f"{folder / DOCUMENT_LOG} ends within a record; {again}")
    return Tokenizer.load(parts[0][0] / "tokenizer")


def _joined_before(out: Path, parts: list[tuple[Path, Manifest]]) -> Manifest | None:
    """The manifest of `out` where it is what joining these parts gives; None otherwise."""
    first = parts[0][1]
    with suppress(UserError):
        manifest = read_manifest(out)
        check_sizes(out, manifest)
        wanted = ({**first.parameters, "part": None}, _revisions(parts), __version__)
        if (manifest.parameters, manifest.revisions, manifest.braingpt) == wanted:
            return manifest
    return None


def _near_duplicates(manifest: Manifest) -> float | None:
    """The similarity from which the parts dropped near duplicates; None where they did not."""
    quality = manifest.parameters.get("quality")
    near = quality.get("near_duplicates") if isinstance(quality, dict) else None
    value = near.get("similarity") if isinstance(near, dict) else None
    return value if isinstance(value, float) else None


def _revisions(parts: list[tuple[Path, Manifest]]) -> dict[str, str]:
    """The commits of all parts.

    UserError where two have read different ones: their lists of files may differ, and with them which part
    has which file.
    """
    commits: dict[str, tuple[str, Path]] = {}
    for folder, manifest in parts:
        for label, commit in manifest.revisions.items():
            before, other = commits.setdefault(label, (commit, folder))
            if before != commit:
                raise UserError(
                    f"{folder} read {label} at commit {commit[:12]}, {other} at {before[:12]}: "
                    "the dataset has changed; prepare all parts with the same --revision"
                )
    return {label: commit for label, (commit, _) in commits.items()}


class _Joiner:
    """Copies part after part. `counts`: what was kept and dropped so far, by source."""

    def __init__(self, writer: FolderWriter, duplicates: Deduplicator, tokenizer: Tokenizer) -> None:
        self.writer, self.duplicates, self.tokenizer = writer, duplicates, tokenizer
        self.counts: dict[str, DropCounts] = {}
        self._bytes_V = tokenizer.token_bytes()

    def copy_part(self, folder: Path, manifest: Manifest) -> Iterator[float]:
        """Copy what is new of one part; yields the share of the part that is done."""
        for source, report in manifest.filters.items():
            self.counts.setdefault(source, DropCounts()).add(report)
        log = folder / DOCUMENT_LOG
        count = log.stat().st_size // RECORD.itemsize
        for begin in range(0, count, SLICE_DOCUMENTS):
            offset = begin * RECORD.itemsize
            records = np.fromfile(log, dtype=RECORD, count=SLICE_DOCUMENTS, offset=offset)
            _check_places(log, manifest, records)
            tokens = np.cumsum(records["length"], dtype=np.int64)
            for chunk in np.split(records, np.flatnonzero(np.diff(tokens // SLICE_TOKENS)) + 1):
                self._copy(folder, manifest, chunk)
            yield min(1.0, (begin + SLICE_DOCUMENTS) / count)

    def _copy(self, folder: Path, manifest: Manifest, records: np.ndarray) -> None:
        """Copy those documents of a part that are new, as one chunk of the deduplication."""
        streams = [manifest.streams[number] for number in records["stream"]]
        ids = [
            _read_document(folder, stream, record, manifest.dtype)
            for stream, record in zip(streams, records, strict=True)
        ]
        check_ids(folder, np.concatenate(ids), len(self._bytes_V))
        self.duplicates.begin(records["keys"], ids)
        for number, stream in enumerate(streams):
            rule = self.duplicates.rule(number)
            if rule:
                sample = excerpt(self.tokenizer.decode(ids[number][:100].tolist()))
                self.counts.setdefault(stream.source, DropCounts()).drop_kept(rule, sample)
                continue
            size = int(self._bytes_V[ids[number]].sum())
            added = self.writer.add(stream.split, stream.language, stream.source, ids[number], size)
            self.duplicates.keep(number, *added)
        self.duplicates.end()


def _check_places(log: Path, manifest: Manifest, records: np.ndarray) -> None:
    """UserError where a record of a part's log names a place that the part does not have."""
    tokens_S = np.zeros((len(manifest.streams), max((len(one.files) for one in manifest.streams), default=0)))
    for number, stream in enumerate(manifest.streams):
        tokens_S[number, : len(stream.files)] = [file.tokens for file in stream.files]
    stream_N, file_N = records["stream"].astype(np.int64), records["file"].astype(np.int64)
    inside = (stream_N < tokens_S.shape[0]) & (file_N < tokens_S.shape[1])
    ends_N = records["at"].astype(np.float64) + records["length"]
    if not inside.all() or (ends_N > tokens_S[stream_N, file_N]).any() or not records["length"].all():
        raise UserError(f"{log} names documents that are not there; prepare the part again with --force")


def _read_document(folder: Path, stream: TokenStream, record: np.void, dtype: TokenDtype) -> np.ndarray:
    """The tokens of a document of a part."""
    little = np.dtype(dtype).newbyteorder("<")
    path = folder / stream.files[record["file"]].path
    offset = int(record["at"]) * little.itemsize
    return np.fromfile(path, dtype=little, count=int(record["length"]), offset=offset)
