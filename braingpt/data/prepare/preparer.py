"""The main process of a preparation. It takes the workers' outcomes in the order of reading, decides what
depends on earlier documents (duplicates, limits, the split), writes, and journals how far the work is.

After an interruption, it restores the journal's state and continues reading after the last chunk in it.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from braingpt import __version__
from braingpt.data.dedup.content_hash import is_held_out
from braingpt.data.dedup.deduplicator import Deduplicator
from braingpt.data.dedup.index import Index
from braingpt.data.document import Document
from braingpt.data.prepare.chunk_reader import Chunk, ChunkReader
from braingpt.data.prepare.drop_counts import DropCounts, describe_losses, excerpt, nothing_kept_message
from braingpt.data.prepare.join import copy_document_log
from braingpt.data.prepare.journal import Journal
from braingpt.data.prepare.limits import Limits
from braingpt.data.prepare.request import (
    SMALL_VALIDATION,
    CheckedRequest,
    Request,
    missing_scores,
)
from braingpt.data.prepare.worker import Outcome, Worker, WorkerSettings
from braingpt.data.prepare.worker_pool import outcomes, processors
from braingpt.data.sample import SampleStream
from braingpt.data.shards.manifest import Manifest, Split, TokenizerFacts
from braingpt.data.shards.writer import FolderWriter
from braingpt.data.sources.catalog import DATASETS, preparation
from braingpt.data.sources.document_stream import DocumentStream
from braingpt.data.sources.open_streams import check_available
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import NO_CHANGES


@dataclass
class Progress:
    """How far a preparation is, at its beginning and after every chunk.

    Attributes:
        source: The source that is read.
        read: Documents read so far.
        kept: Documents kept so far.
        bytes: Bytes of the kept documents' text.
        tokens: Tokens of the kept documents.
        done: Share of the work, 0 to 1; None where unknown.
    """

    source: str
    read: int
    kept: int
    bytes: int
    tokens: int
    done: float | None


class Preparer:
    """One preparation while it runs: `fill` reads and writes, `finish` gives the folder its name."""

    def __init__(
        self,
        request: Request,
        checked: CheckedRequest,
        tokenizer: Tokenizer,
        writer: FolderWriter,
        note: Callable[[str], None],
        progress: Callable[[Progress], None],
    ) -> None:
        self.request, self.checked, self.tokenizer = request, checked, tokenizer
        self.writer, self.progress = writer, progress
        self.counts: dict[str, DropCounts] = {}
        self.notes: list[str] = []
        self._note = note
        self._limits = Limits(checked.max_samples, request.max_tokens)
        # Number of the stream being read.
        self._current = 0
        # Bytes of the text that is kept.
        self._bytes = 0
        # Whether the splits are settled, which is the last thing that changes the files.
        self._held = False
        # What cleaning changed in the documents that this process has taken.
        self._changes = NO_CHANGES
        self._settings: WorkerSettings = (checked.quality, checked.languages, tokenizer)
        self._worker = Worker(*self._settings)
        for line in self._worker.judge.notes:
            self.note(line)
        missing = missing_scores(request.name, checked.quality)
        if missing:
            self.note(
                f"'{request.name}' provides no {' or '.join(missing)}, which educational.scores asks for; "
                "it drops nothing"
            )
        self._reader = ChunkReader(checked.streams, self.note, self._is_full)
        self.streams = self._reader.streams
        # Position of each stream after its last chunk; None where nothing was read.
        self._positions: list[dict[str, Any] | None] = [None] * len(self.streams)
        self._journal = Journal(writer.work)
        self._index = Index(writer.work, self._restore())
        near = checked.quality.near_duplicates
        self._duplicates = Deduplicator(self._index, writer.read_back, near.similarity if near else None)

    def note(self, line: str) -> None:
        """Keep a line for the user and pass it on."""
        self.notes.append(line)
        self._note(line)

    def fill(self) -> None:
        """Read, judge and write everything."""
        if self._held:
            return
        self._report_progress(None)
        chunks = self._reader.chunks(self._current)
        most = max(2, processors())
        if (workers := self.request.workers) > most:
            self.note(f"--workers {workers:,} is more than the processors here; {most} are started")
            workers = most
        with closing(outcomes(chunks, self._worker, self._settings, workers, self._fraction_done)) as results:
            for chunk, outcome in results:
                self._take(chunk, outcome)
                if self._journal.due():
                    self._commit()
        check_available(self.streams, self.checked.streams)
        self._commit()

    def finish(self) -> Manifest:
        """Settle the splits, and give the folder its name."""
        if not self._held and not self.request.part:
            share = SMALL_VALIDATION if self.request.validation is None else self.request.validation
            self.writer.hold_out(share, self.tokenizer.token_bytes())
            self._held = True
            self._commit()
        self.writer.restore(self.writer.state())
        streams = self.writer.close()
        if not streams and not self.request.part:
            # Continuing would give the same result: nothing.
            self.writer.keep = False
            reports = [counts.report() for counts in self.counts.values()]
            raise UserError(nothing_kept_message(self.request.name, reports))
        shutil.rmtree(self.writer.root / "tokenizer", ignore_errors=True)
        self.tokenizer.save(self.writer.root / "tokenizer")
        log = copy_document_log(self.writer, self._index, streams) if self.request.part else None
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
            document_log=log,
        )
        self.writer.publish(manifest)
        # The sample corpus shows what rules drop.
        if self.request.name != "sample":
            for line in describe_losses(self.request.name, list(manifest.filters.values())):
                self.note(line)
            if self._changes:
                self.note(f"texts were cleaned: {self._changes.describe()}")
        return manifest

    def close(self) -> None:
        """Close the files of the index."""
        self._index.close()

    def _revisions(self) -> dict[str, str]:
        """The commit of every stream of which something was taken, however far reading was ahead when a limit
        was met.
        """
        taken = zip(self.streams, self._positions, strict=True)
        return {stream.label: at["revision"] for stream, at in taken if at and at.get("revision")}

    def _restore(self) -> int:
        """Restore the state of the journal, if one was left with the same parameters.

        Returns:
            Documents of the index's log that count.
        """
        # A journal without a folder: the folder was published, and the process killed at once.
        left = self.writer.root.exists()
        reason = self._journal.why_not_ours(self.checked.parameters) if left else None
        if reason and not self.request.force:
            raise UserError(
                f"{self.writer.work} holds an interrupted preparation {reason}; "
                "discard it with --force, or choose another --out"
            )
        state = self._journal.state if left and not reason else None
        damage = self._journal.damage if left and not reason else None
        if state and not damage:
            damage = state.problem(self.writer.work, self.writer.root, self.writer.dtype, len(self.streams))
        if damage:
            self.note(
                f"an interrupted preparation in {self.writer.work} is damaged ({damage}); it begins again"
            )
        if state is None or damage:
            self._journal.remove()
            self.writer.restore([])
            return 0
        self.writer.restore([stream.model_dump() for stream in state.writer])
        self.counts = {source: DropCounts(report.model_dump()) for source, report in state.counts.items()}
        self._limits.restore(state.caps.model_dump())
        self._positions, self._current = state.positions, state.current
        self._bytes, self._held = state.bytes, state.held
        for stream, position in zip(self.streams, self._positions, strict=True):
            if position:
                stream.resume(position)
        read = sum(counts.read for counts in self.counts.values())
        self.note(f"continuing an interrupted preparation after {read:,} documents")
        return state.documents

    def _commit(self) -> None:
        """Put everything so far on the disk, and the journal that describes it."""
        self.writer.sync()
        self._index.sync()
        self._journal.write(
            {
                "parameters": self.checked.parameters,
                "dtype": self.writer.dtype,
                "writer": self.writer.state(),
                "documents": self._index.count,
                "log": self._index.log_hash(),
                "counts": {source: counts.report() for source, counts in self.counts.items()},
                "caps": self._limits.state(),
                "positions": self._positions,
                "current": self._current,
                "bytes": self._bytes,
                "held": self._held,
            }
        )
        self.writer.keep = True

    def _take(self, chunk: Chunk, outcome: Outcome) -> None:
        """Write what is to be kept of a chunk, and count the others."""
        stream = self.streams[chunk.stream]
        # The chunk may have been read before its stream was full.
        if self._is_full(stream):
            return
        self._changes += outcome.changes
        counts = self.counts.setdefault(stream.source, DropCounts())
        for broken in chunk.broken:
            counts.drop(broken.rule, excerpt(broken.sample))
        ids = np.split(outcome.ids, np.cumsum(outcome.lengths)[:-1]) if len(outcome.lengths) else []
        self._duplicates.begin(outcome.keys, ids)
        # Number of the document among those the worker found good.
        good = -1
        for document, rule, language in zip(chunk.documents, outcome.rules, outcome.languages, strict=True):
            if self._is_full(stream):
                break
            if rule is None:
                good += 1
                rule = self._write(stream.source, language or "", good, ids[good], outcome)
            if rule is None:
                counts.keep()
            else:
                counts.drop(rule, _sample(document, rule, language) if counts.wants_sample(rule) else "")
        self._duplicates.end()
        self._current, self._positions[chunk.stream] = chunk.stream, chunk.after
        self._report_progress(chunk)

    def _write(self, source: str, language: str, good: int, ids: np.ndarray, outcome: Outcome) -> str | None:
        """Write a good document, or return the rule that drops it beside the documents before."""
        rule = self._duplicates.rule(good) or self._limits.rule(source, language, len(ids))
        if rule:
            return rule
        share = self.request.validation_share(source)
        split: Split = "validation" if is_held_out(int(outcome.keys[good, 0]), share) else "train"
        size = int(outcome.bytes[good])
        self._duplicates.keep(good, *self.writer.add(split, language, source, ids, size))
        self._bytes += size
        self._limits.add(source, language, len(ids))
        return None

    def _is_full(self, stream: DocumentStream | SampleStream) -> bool:
        """Whether no further document of this stream is wanted."""
        named = stream.language if self.checked.quality.language.trust_source else None
        languages = [named] if named else self.checked.languages
        return all(self._limits.is_full(stream.source, language) for language in languages)

    def _report_progress(self, chunk: Chunk | None) -> None:
        self.progress(
            Progress(
                source=self.streams[self._current].source,
                read=sum(counts.read for counts in self.counts.values()),
                kept=sum(counts.kept for counts in self.counts.values()),
                bytes=self._bytes,
                tokens=self._limits.tokens(),
                done=self._fraction_done(chunk),
            )
        )

    def _fraction_done(self, chunk: Chunk | None) -> float | None:
        """Share of the work, 0 to 1: of the streams or of the limits, whichever is further on."""
        fractions: list[float] = []
        if chunk and chunk.fraction_read is not None:
            fractions.append((chunk.stream + chunk.fraction_read) / len(self.streams))
        datasets = preparation(self.request.name).datasets
        pairs = sum(
            DATASETS[dataset].offers(language) for dataset in datasets for language in self.checked.languages
        )
        return max([*fractions, *self._limits.fractions(pairs)], default=None)


def _sample(document: Document, rule: str, language: str | None) -> str:
    """How a dropped document looks; one of an unwanted language says which."""
    if rule == "language":
        return excerpt(f"[{language or 'unknown'}] {document.text[:400]}")
    return excerpt(document.text)
