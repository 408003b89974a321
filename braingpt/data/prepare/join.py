"""Parts of a preparation, made on several machines, put together as one prepared folder: near duplicates
across them go, as within one.

Every part has kept the log of its index (`index.py`): the keys of each document and where its tokens lie. The
parts are read in order, a document that an earlier part has is left out, and the others are copied. Memory is
that of the index, whatever the size.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from braingpt import __version__
from braingpt.data.dedup.deduplicator import Deduplicator
from braingpt.data.dedup.index import LOG, RECORD, Index
from braingpt.data.prepare.drop_counts import DropCounts, shown
from braingpt.data.prepare.journal import Journal
from braingpt.data.prepare.request import difference
from braingpt.data.shards.manifest import Manifest, TokenStream, check_sizes, read_manifest
from braingpt.data.shards.writer import FolderWriter, Place, check_replaceable
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer

# share held out of a language that has nothing held out, where --validation was not given
SMALL = 0.05
# documents taken at once,
SLICE = 4096
# but when they are longer than so many together, fewer
TOKENS = 4 << 20


def join(
    folders: list[Path],
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Manifest, Tokenizer]:
    """One folder `out` from all the parts of one preparation.

    UserError where they are not that, or `out` is there already.
    """
    parts = _parts(folders)
    tokenizer = Tokenizer.load(parts[0][0] / "tokenizer")
    if out.exists():
        check_replaceable(out)
        if any(out.iterdir()) and not force:
            raise UserError(f"{out} is there already; --force replaces it, --out DIR writes elsewhere")
    first = parts[0][1]
    near = (first.parameters["quality"].get("near_duplicates") or {}).get("similarity")
    with FolderWriter(out, first.dtype) as writer:
        if writer.keep and not force:
            raise UserError(
                f"{writer.work} holds an interrupted preparation; finish it, or --force discards it, --out DIR writes elsewhere"
            )
        Journal(writer.work).remove()
        writer.keep = False
        writer.restore([])
        index = Index(writer.work)
        try:
            joined = _Joined(
                writer, Deduplicator(index, lambda record: _stored(writer, record), near), tokenizer
            )
            for number, (folder, manifest) in enumerate(parts):
                for share in joined.take(folder, manifest):
                    progress((number + share) / len(parts))
        finally:
            index.close()
        if not any(stream.tokens for stream in writer.streams):
            raise UserError(f"the parts of '{first.name}' hold no documents; nothing was written")
        given = first.parameters["validation"]
        writer.hold_out(SMALL if given is None else given, np.asarray(tokenizer.token_bytes()))
        writer.sync()
        writer.restore(writer.state())
        streams = writer.close()
        tokenizer.save(writer.root / "tokenizer")
        manifest = first.model_copy(
            update={
                "braingpt": __version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "parameters": {**first.parameters, "part": None},
                "revisions": _revisions(parts),
                "streams": streams,
                "filters": {source: counts.report() for source, counts in joined.counts.items()},
            }
        )
        writer.publish(manifest)
    return manifest, tokenizer


def leave_log(writer: FolderWriter, index: Index, streams: list[TokenStream]) -> None:
    """Put a copy of the index' log into the folder of a part, its streams numbered as in the manifest."""
    order = [(stream.split, stream.language, stream.source) for stream in streams]
    number_S = np.array(
        [order.index((one.split, one.language, one.source)) for one in writer.streams], dtype=np.uint16
    )
    with (writer.root / LOG).open("wb") as file:
        for _, records in index.batches():
            records["stream"] = number_S[records["stream"]]
            file.write(records.tobytes())


def _parts(folders: list[Path]) -> list[tuple[Path, Manifest]]:
    """The parts in their order, all of them, of one preparation."""
    found: dict[int, tuple[Path, Manifest]] = {}
    count = 0
    for folder in folders:
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        named = manifest.parameters.get("part")
        if not named or not (folder / LOG).is_file():
            raise UserError(
                f"{folder} is no part of a preparation; `braingpt data prepare NAME --part 1/8` makes one"
            )
        number, count = map(int, named.split("/"))
        if number in found:
            raise UserError(f"{folder} and {found[number][0]} are the same part, {named}")
        found[number] = (folder, manifest)
    if not found:
        raise UserError("no parts to join; braingpt data join DIR... --out DIR")
    parts = [found[number] for number in sorted(found)]
    for folder, manifest in parts[1:]:
        # the times of files differ from machine to machine
        skipped = {"part": None, "inputs": None}
        changed = difference({**parts[0][1].parameters, **skipped}, {**manifest.parameters, **skipped})
        if changed or manifest.parameters["part"].split("/")[1] != str(count):
            raise UserError(
                f"{folder} was prepared with other parameters than {parts[0][0]} ({changed or 'another number of parts'})"
            )
        # whose rules may differ
        if manifest.braingpt != parts[0][1].braingpt:
            raise UserError(
                f"{folder} was prepared by braingpt {manifest.braingpt}, {parts[0][0]} by {parts[0][1].braingpt}"
            )
    _revisions(parts)
    missing = [str(number) for number in range(1, count + 1) if number not in found]
    if missing:
        raise UserError(f"of {count} parts these are missing: {', '.join(missing[:10])}")
    return parts


def _revisions(parts: list[tuple[Path, Manifest]]) -> dict[str, str]:
    """The commits of all parts.

    UserError where two have read different ones: their lists of files may differ, and with them what is
    whose.
    """
    found: dict[str, tuple[str, Path]] = {}
    for folder, manifest in parts:
        for label, commit in manifest.revisions.items():
            before, other = found.setdefault(label, (commit, folder))
            if before != commit:
                raise UserError(
                    f"{folder} read {label} at commit {commit[:12]}, {other} at {before[:12]}: it has changed in between; "
                    "prepare all parts with the same --revision"
                )
    return {label: commit for label, (commit, _) in found.items()}


def _stored(writer: FolderWriter, record: np.void) -> np.ndarray:
    stream = writer.streams[record["stream"]]
    stream.flush()
    return stream.read(Place(int(record["file"]), int(record["at"]), int(record["length"])))


class _Joined:
    """What has been put together so far."""

    def __init__(self, writer: FolderWriter, duplicates: Deduplicator, tokenizer: Any) -> None:
        self.writer, self.duplicates, self.tokenizer = writer, duplicates, tokenizer
        self.counts: dict[str, DropCounts] = {}
        self._bytes_V = np.asarray(tokenizer.token_bytes())

    def take(self, folder: Path, manifest: Manifest) -> Iterator[float]:
        """Copy what is new of one part; tells the share done."""
        for source, report in manifest.filters.items():
            self.counts.setdefault(source, DropCounts()).add(report)
        count = (folder / LOG).stat().st_size // RECORD.itemsize
        for begin in range(0, count, SLICE):
            records = np.fromfile(folder / LOG, dtype=RECORD, count=SLICE, offset=begin * RECORD.itemsize)
            for some in np.split(
                records, np.flatnonzero(np.diff(np.cumsum(records["length"], dtype=np.int64) // TOKENS)) + 1
            ):
                self._take(folder, manifest, some)
            yield min(1.0, (begin + SLICE) / count)

    def _take(self, folder: Path, manifest: Manifest, records: np.ndarray) -> None:
        streams = [manifest.streams[number] for number in records["stream"]]
        ids = [
            _tokens(folder, stream, record, manifest.dtype)
            for stream, record in zip(streams, records, strict=True)
        ]
        self.duplicates.begin(records["keys"], ids)
        for number, stream in enumerate(streams):
            rule = self.duplicates.rule(number)
            if rule:
                self.counts[stream.source].lose(
                    rule, shown(self.tokenizer.decode(ids[number][:100].tolist()))
                )
                continue
            size = int(self._bytes_V[ids[number]].sum())
            added = self.writer.add(stream.split, stream.language, stream.source, ids[number], size)
            self.duplicates.keep(number, *added)
        self.duplicates.end()


def _tokens(folder: Path, stream: TokenStream, record: np.void, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype).newbyteorder("<")
    path = folder / stream.files[record["file"]].path
    return np.fromfile(
        path, dtype=kind, count=int(record["length"]), offset=int(record["at"]) * kind.itemsize
    )
