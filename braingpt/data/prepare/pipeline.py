"""One preparation from end to end: documents -> judged, tokenized -> deduplicated -> shards.

    streams --chunks--> workers --outcomes, in order--> deduplication -> token files
       ^ position                                            |
       +------------------------- journal <------------------+

The main process reads, and takes the workers' outcomes in the order of reading; all that depends on former
documents (duplicates, caps) is decided there. Memory is bounded by a few chunks. The result is a pure
function of the inputs and the parameters: the number of workers and interruptions leave no trace in it.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from braingpt import __version__
from braingpt.data.dedup.content_hash import held_out
from braingpt.data.dedup.deduplicator import Deduplicator
from braingpt.data.dedup.index import Index
from braingpt.data.document import Document
from braingpt.data.prepare.drop_counts import DropCounts, nothing_kept, shown
from braingpt.data.prepare.join import leave_log
from braingpt.data.prepare.journal import Journal, changed
from braingpt.data.prepare.limits import Limits
from braingpt.data.prepare.request import Checked, Request, check, existing, missing_scores
from braingpt.data.prepare.worker import Chunk, Outcome, Worker, outcomes
from braingpt.data.shards.manifest import Manifest, TokenizerFacts
from braingpt.data.shards.writer import FolderWriter, Place, clear_up
from braingpt.data.sources.catalog import DATASETS, preparation
from braingpt.data.sources.open_streams import check_found, open_streams
from braingpt.errors import UserError

# characters given to a worker at once
CHUNK = 500_000
# documents, however short
MANY = 5_000
# share held out of the sample corpus and of the user's own files, as of the small corpora in the table
SMALL = 0.05


@dataclass
class Progress:
    """How far a preparation is, as told to the callback: once at its beginning, then behind every chunk."""

    source: str
    # documents
    read: int
    kept: int
    # of kept text
    bytes: int
    tokens: int
    # share of the work, where it is known
    done: float | None


@dataclass
class Prepared:
    """The outcome. `fresh` is False when the folder was there already, prepared with the same parameters."""

    manifest: Manifest
    fresh: bool
    seconds: float
    notes: list[str]


def prepare(
    request: Request,
    tokenizer: Any,
    *,
    note: Callable[[str], None] = lambda line: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Prepared:
    """Prepare `request.out`, or report it as it is when it was prepared with the same parameters; go on where
    an interrupted one stopped.

    Raises UserError for anything wrong with the request, nothing found or nothing kept, and an existing
    folder with other parameters; Failure when the hub or a file cannot be read; OSError when the disk is
    full. `request.out` is whole or as it was, whatever is raised; what an interruption or a failure leaves
    for the next time lies in `.NAME.partial` beside it.
    """
    start = time.monotonic()
    checked = check(request, tokenizer)
    there = existing(request, checked.parameters)
    if there:
        clear_up(request.out)
        return Prepared(there, False, 0.0, [])
    with FolderWriter(request.out, "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32") as writer:
        run = _Run(request, checked, tokenizer, writer, note, progress)
        try:
            run.fill()
            manifest = run.finish()
        except BaseException:
            if writer.keep:
                run.note(f"what is finished is kept in {writer.work}; the same command goes on from there")
            raise
        finally:
            run.close()
    return Prepared(manifest, True, time.monotonic() - start, run.notes)


class _Run:
    """The state of one preparation while it runs."""

    def __init__(
        self,
        request: Request,
        checked: Checked,
        tokenizer: Any,
        writer: FolderWriter,
        note: Any,
        progress: Any,
    ) -> None:
        self.request, self.checked, self.tokenizer, self.writer, self.progress = (
            request,
            checked,
            tokenizer,
            writer,
            progress,
        )
        self.counts: dict[str, DropCounts] = {}
        self.notes: list[str] = []
        self._note = note
        # rows read since the last document
        self._broken: list[tuple[str, str, str]] = []
        self._caps = Limits(checked.max_samples, request.max_tokens)
        # stream
        self._current = 0
        self._bytes = 0
        # the splits are settled
        self._held = False
        self._settings = (checked.quality, checked.languages, tokenizer)
        self._worker = Worker(*self._settings)
        for line in self._worker.judge.notes:
            self.note(line)
        missing = missing_scores(request.name, checked.quality)
        if missing:
            self.note(
                f"'{request.name}' gives no {' or '.join(missing)}, which educational.scores asks for; it drops nothing"
            )
        self.streams = open_streams(
            request.name, checked.languages, note=self.note, broken=lambda *row: self._broken.append(row), paths=request.paths,
            part=request.part, **request.reading(),
        )  # fmt: skip
        self._positions: list[dict[str, Any] | None] = [None] * len(self.streams)
        self._restore()

    def note(self, line: str) -> None:
        """Keep a line for the user and pass it on."""
        self.notes.append(line)
        self._note(line)

    def fill(self) -> None:
        """Read, judge and write everything."""
        if self._held:
            return
        self._tell(None)
        with closing(
            outcomes(self._chunks(), self._worker, self._settings, self.request.workers, self._done)
        ) as results:
            for chunk, outcome in results:
                self._take(chunk, outcome)
                if self._journal.due():
                    self._commit()
        check_found(self.streams, self.request.name, self.checked.languages, self.request.source)
        self._commit()

    def finish(self) -> Manifest:
        """Settle the splits, and give the folder its name."""
        if not self._held and not self.request.part:
            share = SMALL if self.request.validation is None else self.request.validation
            self.writer.hold_out(share, np.asarray(self.tokenizer.token_bytes()))
            self._held = True
            self._commit()
        self.writer.restore(self.writer.state())
        streams = self.writer.close()
        if not streams and not self.request.part:
            # it would be the same again
            self.writer.keep = False
            raise UserError(
                nothing_kept(self.request.name, [counts.report() for counts in self.counts.values()])
            )
        shutil.rmtree(self.writer.root / "tokenizer", ignore_errors=True)
        self.tokenizer.save(self.writer.root / "tokenizer")
        if self.request.part:
            leave_log(self.writer, self._index, streams)
        manifest = Manifest(
            name=self.request.name,
            braingpt=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters=self.checked.parameters,
            revisions=self._revisions(),
            tokenizer=TokenizerFacts(
                fingerprint=self.tokenizer.fingerprint, vocab_size=self.tokenizer.vocab_size
            ),
            dtype=self.writer.dtype,
            streams=streams,
            filters={source: counts.report() for source, counts in self.counts.items()},
        )
        self.writer.publish(manifest)
        return manifest

    def _revisions(self) -> dict[str, str]:
        """The commit of every stream of which something was taken, however far reading was ahead when a cap
        was met.
        """
        taken = zip(self.streams, self._positions, strict=True)
        return {stream.label: at["revision"] for stream, at in taken if at and at.get("revision")}

    def close(self) -> None:
        """Let the files of the index go."""
        self._index.close()

    def _restore(self) -> None:
        """The state of the journal, where one was left with the same parameters."""
        self._journal = Journal(self.writer.work)
        # it was published, and the process killed at once
        state = self._journal.state if self.writer.root.exists() else None
        why = changed(state, self.checked.parameters) if state else None
        if why and not self.request.force:
            raise UserError(
                f"{self.writer.work} holds an interrupted preparation {why}; --force discards it, --out DIR writes elsewhere"
            )
        if state is None or why:
            self._journal.remove()
            self.writer.restore([])
            self._open_index(0)
            return
        self.writer.restore(state["writer"])
        self._open_index(state["documents"])
        self.counts = {source: DropCounts(report) for source, report in state["counts"].items()}
        self._caps.restore(state["caps"])
        self._positions, self._current, self._bytes, self._held = (
            state["positions"],
            state["current"],
            state["bytes"],
            state["held"],
        )
        for stream, position in zip(self.streams, self._positions, strict=True):
            if position:
                stream.resume(position)
        self.note(
            f"going on with an interrupted preparation, behind {sum(one.read for one in self.counts.values()):,} documents"
        )

    def _commit(self) -> None:
        """Everything so far on the disk, and the journal that tells of it."""
        self.writer.sync()
        self._index.sync()
        self._journal.write(
            {
                "parameters": self.checked.parameters,
                "writer": self.writer.state(),
                "documents": self._index.count,
                "counts": {source: counts.report() for source, counts in self.counts.items()},
                "caps": self._caps.state(),
                **{name: getattr(self, f"_{name}") for name in ("positions", "current", "bytes", "held")},
            }
        )
        self.writer.keep = True

    def _open_index(self, count: int) -> None:
        near = self.checked.quality.near_duplicates
        self._index = Index(self.writer.work, count)
        self._duplicates = Deduplicator(self._index, self._stored, near.similarity if near else None)

    def _stored(self, record: np.void) -> np.ndarray:
        """Tokens of a document that was written."""
        stream = self.writer.streams[record["stream"]]
        stream.flush()
        return stream.read(Place(int(record["file"]), int(record["at"]), int(record["length"])))

    def _chunks(self) -> Iterator[Chunk]:
        """Everything there is to read, from where the journal left off."""
        for number in range(self._current, len(self.streams)):
            if self._is_full(number):
                continue
            documents: list[Document] = []
            size = 0
            try:
                with closing(iter(self.streams[number])) as reading:
                    for document in reading:
                        documents.append(document)
                        size += len(document.text)
                        if size >= CHUNK or len(documents) >= MANY:
                            if self._is_full(number):
                                break
                            yield self._chunk(number, documents)
                            documents, size = [], 0
            except Exception:
                # what was read before is not lost
                yield self._chunk(number, documents)
                raise
            yield self._chunk(number, documents)

    def _chunk(self, number: int, documents: list[Document]) -> Chunk:
        broken, self._broken = self._broken, []
        stream = self.streams[number]
        return Chunk(number, documents, broken, stream.position(), stream.done())

    def _take(self, chunk: Chunk, outcome: Outcome) -> None:
        """Write what is to be kept of a chunk, and count the rest."""
        # it was read before that was known
        if self._is_full(chunk.stream):
            return
        source = self.streams[chunk.stream].source
        counts = self.counts.setdefault(source, DropCounts())
        for _, rule, sample in chunk.broken:
            counts.drop(rule, shown(sample))
        ids = np.split(outcome.ids, np.cumsum(outcome.lengths)[:-1]) if len(outcome.lengths) else []
        self._duplicates.begin(outcome.keys, ids)
        # number among those the worker found good
        good = -1
        for document, rule, language in zip(chunk.documents, outcome.rules, outcome.languages, strict=True):
            if self._is_full(chunk.stream):
                break
            if rule is None:
                good += 1
                rule = self._duplicates.rule(good) or self._caps.rule(source, language, len(ids[good]))
            if rule is None:
                counts.keep()
                self._write(source, language, good, ids[good], outcome)
            else:
                named = (
                    f"[{language or 'unknown'}] {document.text[:400]}"
                    if rule == "language"
                    else document.text
                )
                counts.drop(rule, shown(named) if counts.wants(rule) else "")
        self._duplicates.end()
        self._current, self._positions[chunk.stream] = chunk.stream, chunk.after
        self._tell(chunk)

    def _write(self, source: str, language: str, good: int, ids: np.ndarray, outcome: Outcome) -> None:
        split = "validation" if held_out(int(outcome.keys[good, 0]), self._share(source)) else "train"
        size = int(outcome.bytes[good])
        self._duplicates.keep(good, *self.writer.add(split, language, source, ids, size))
        self._bytes += size
        self._caps.add(source, language, len(ids))

    def _is_full(self, number: int) -> bool:
        """Whether no document of this stream can be wanted any more."""
        stream = self.streams[number]
        named = stream.language if self.checked.quality.language.trust_source else None
        return all(
            self._caps.full(stream.source, language)
            for language in ([named] if named else self.checked.languages)
        )

    def _share(self, source: str) -> float:
        if self.request.validation is not None:
            return self.request.validation
        return DATASETS[source].validation if source in DATASETS else SMALL

    def _tell(self, chunk: Chunk | None) -> None:
        read, kept = (
            sum(getattr(counts, name) for counts in self.counts.values()) for name in ("read", "kept")
        )
        source = self.streams[self._current].source
        self.progress(Progress(source, read, kept, self._bytes, self._caps.tokens(), self._done(chunk)))

    def _done(self, chunk: Chunk | None) -> float | None:
        """Share of the work: of the streams, or of the caps, whichever is further on."""
        shares = [(chunk.stream + chunk.done) / len(self.streams)] if chunk and chunk.done is not None else []
        datasets = preparation(self.request.name).datasets
        pairs = sum(
            DATASETS[dataset].offers(language) for dataset in datasets for language in self.checked.languages
        )
        return max([*shares, *self._caps.done(pairs)], default=None)
