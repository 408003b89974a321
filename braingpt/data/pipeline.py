"""One preparation from end to end: documents -> filters -> deduplication -> tokens -> shards.

Batches of documents are tokenized on all processors, everything else runs in one thread: reading and filtering beside the tokenizer's
threads was slower (11.5 s instead of 9.5 s for 28 MB on two processors), as they take turns at the interpreter lock. Memory stays bounded
by a batch and the deduplication's eight bytes a document, whatever the size of the corpus. The result is a pure function of the inputs and
the parameters.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from braingpt import __version__
from braingpt.data import files
from braingpt.data.dedup import Seen, content_hash, held_out
from braingpt.data.document import Document
from braingpt.data.filters import Filters
from braingpt.data.manifest import NAME, Manifest, TokenizerFacts, check_sizes, read_manifest
from braingpt.data.sources import DATASETS, check_languages, preparation
from braingpt.data.stream import Stream
from braingpt.data.streams import check_found, check_options, open_streams
from braingpt.data.writer import FolderWriter, check_replaceable
from braingpt.errors import UserError

BATCH = 500_000  # characters tokenized at once
SMALL = 0.05  # share held out of the sample corpus and of the user's own files, as of the small corpora in the table


@dataclass
class Request:
    """What `braingpt data prepare` was asked for. None stands for the corpus' own default."""

    name: str
    out: Path
    paths: list[Path] = field(default_factory=list)  # of `text`
    source: Path | None = None
    languages: list[str] | None = None
    max_samples: int | None = None  # kept documents, per source and language
    column: str | None = None
    revision: str | None = None  # of hub datasets
    config: str | None = None
    split: str | None = None
    validation: float | None = None  # share of the documents
    force: bool = False


@dataclass
class Progress:
    """How far a preparation is, as told to the callback."""

    source: str
    read: int  # documents
    kept: int
    bytes: int  # of kept text
    tokens: int
    done: float | None  # share of the work, where it is known


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
    """Prepare `request.out`, or report it as it is when it was prepared with the same parameters.

    Raises UserError for anything wrong with the request, nothing found or nothing kept, and an existing folder with other parameters;
    Failure when the hub or a file cannot be read; OSError when the disk is full. Whatever is raised, nothing is left behind.
    """
    start = time.monotonic()
    languages, inputs, parameters = _check(request, tokenizer)
    existing = _existing(request, parameters, tokenizer)
    if existing:
        return Prepared(existing, False, 0.0, [])
    run = _Run(request, tokenizer, languages, inputs, note, progress)
    with FolderWriter(request.out, "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32") as writer:
        run.fill(writer)
        streams = writer.close()
        if not streams:
            raise UserError(_nothing_kept(request.name, run.filters))
        tokenizer.save(writer.root / "tokenizer")
        manifest = Manifest(
            name=request.name,
            braingpt=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters=parameters,
            tokenizer=TokenizerFacts(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size),
            dtype=writer.dtype,
            streams=streams,
            filters={source: filters.report() for source, filters in run.filters.items()},
        )
        writer.publish(manifest)
    return Prepared(manifest, True, time.monotonic() - start, run.notes)


def _check(request: Request, tokenizer: Any) -> tuple[list[str], list[Path], dict[str, Any]]:
    """Languages, input files and the parameters that go into the manifest."""
    entry = preparation(request.name)
    check_options(request.name, request.paths, **_reading(request))
    if request.max_samples is not None and request.max_samples < 1:
        raise UserError(f"--max-samples must be at least 1, not {request.max_samples}")
    if request.validation is not None and not 0 <= request.validation <= 0.5:
        raise UserError(f"--validation is a share from 0 to 0.5, not {request.validation}")
    languages = list(dict.fromkeys(request.languages or entry.languages))
    check_languages(request.name, languages, tokenizer.markers)
    inputs = files.find(request.paths) if request.name == "text" else []
    parameters = {
        "paths": [str(path if request.name == "hub" else path.resolve()) for path in request.paths],
        "inputs": files.stamp(inputs) if inputs else None,
        "source": str(request.source.resolve()) if request.source else None,
        "languages": languages,
        "max_samples": request.max_samples or entry.max_samples,
        "column": request.column,
        "revision": request.revision,
        "config": request.config,
        "split": request.split,
        "validation": request.validation,
    }
    return languages, inputs, parameters


def _reading(request: Request) -> dict[str, Any]:
    """What of a request is about reading."""
    return {key: getattr(request, key) for key in ("source", "column", "revision", "config", "split")}


def _existing(request: Request, parameters: dict[str, Any], tokenizer: Any) -> Manifest | None:
    """The manifest of a whole folder prepared with the same parameters; UserError for any other folder, unless it may be replaced."""
    out = request.out
    if not out.exists() and not out.is_symlink():
        return None
    check_replaceable(out)
    if request.force or not any(out.iterdir()):
        return None
    if not (out / NAME).is_file():
        raise UserError(f"{out} is there already and has no manifest; --force replaces it, --out DIR writes elsewhere")
    manifest = read_manifest(out)
    check_sizes(out, manifest)
    before = {"corpus": manifest.name, **manifest.parameters, "tokenizer": manifest.tokenizer.fingerprint[:12]}
    now = {"corpus": request.name, **parameters, "tokenizer": tokenizer.fingerprint[:12]}
    for key, value in now.items():
        if before.get(key) != value:
            was = "changed since" if key == "inputs" else f"was {_show(before.get(key))}, now {_show(value)}"
            raise UserError(f"{out} was prepared with other parameters ({key}: {was}); --force replaces it, --out DIR writes elsewhere")
    return manifest


def _show(value: Any) -> str:
    return "the default" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _Run:
    """The state of one preparation while it runs."""

    def __init__(self, request: Request, tokenizer: Any, languages: list[str], inputs: list[Path], note: Any, progress: Any) -> None:
        self.request, self.tokenizer, self.languages, self.inputs, self.progress = request, tokenizer, languages, inputs, progress
        self.filters: dict[str, Filters] = {}
        self.notes: list[str] = []
        self._note = note
        self._seen = Seen()
        self._kept: Counter[tuple[str, str]] = Counter()  # documents by source and language, against the cap
        self._cap = request.max_samples or preparation(request.name).max_samples
        self._bytes = self._tokens = 0
        self._done: float | None = None
        self._current = ""

    def note(self, line: str) -> None:
        """Keep a line for the user and pass it on."""
        self.notes.append(line)
        self._note(line)

    def fill(self, writer: FolderWriter) -> None:
        """Write all streams of the preparation."""
        with closing(self._batches()) as batches:
            for batch in batches:
                self._write(writer, batch)
        token_bytes_V = np.asarray(self.tokenizer.token_bytes())
        writer.hold_out(SMALL if self.request.validation is None else self.request.validation, token_bytes_V)

    def _write(self, writer: FolderWriter, batch: list[tuple[Document, int]]) -> None:
        encoded = self.tokenizer.encode_batch([document.text for document, _ in batch])
        for (document, hashed), ids in zip(batch, encoded, strict=True):
            share = self._share(document.source)
            split = "validation" if held_out(hashed, share) else "train"
            ids = [self.tokenizer.markers[document.language], *ids, self.tokenizer.eot]
            size = len(document.text.encode("utf-8"))
            writer.add(split, document.language, document.source, ids, size)
            self._bytes += size
            self._tokens += len(ids)
        read = sum(filters.read for filters in self.filters.values())
        kept = sum(filters.kept for filters in self.filters.values())
        self.progress(Progress(self._current, read, kept, self._bytes, self._tokens, self._share_done()))

    def _share_done(self) -> float | None:
        """Of the input files, or of the cap where there is one; None for a stream without a known end."""
        datasets = preparation(self.request.name).datasets
        if not self._cap or not datasets:
            return self._done
        streams = sum(DATASETS[dataset].offers(language) for dataset in datasets for language in self.languages)
        return min(1.0, sum(self._kept.values()) / (self._cap * streams))

    def _share(self, source: str) -> float:
        if self.request.validation is not None:
            return self.request.validation
        return DATASETS[source].validation if source in DATASETS else SMALL

    def _batches(self) -> Iterator[list[tuple[Document, int]]]:
        """Kept documents and their content hashes, in batches of about BATCH characters."""
        batch: list[tuple[Document, int]] = []
        size = 0
        for source, documents in self._streams():
            self._current = source
            filters = self._filters(source)
            with closing(documents):
                for document in documents:
                    if all(self._full(source, language) for language in ([document.language] if document.language else self.languages)):
                        break
                    kept = filters.apply(document)
                    if kept is None:
                        continue
                    hashed = content_hash(kept.text)
                    if not self._seen.add(hashed):
                        filters.duplicate(kept)
                        continue
                    if self._full(source, kept.language):  # detected just now
                        filters.drop("beyond --max-samples", kept.text)
                        continue
                    self._kept[source, kept.language] += 1
                    batch.append((kept, hashed))
                    size += len(kept.text)
                    if size >= BATCH:
                        yield batch
                        batch, size = [], 0
        if batch:
            yield batch

    def _streams(self) -> Iterator[tuple[str, Iterator[Document]]]:
        """`(source, documents)` of everything the preparation reads. A stream holds one language, or languages to be detected."""
        if self.request.name == "sample":
            from braingpt.data.sample import documents

            yield "sample", (document for document in documents() if document.language in self.languages)
            return
        request = self.request
        streams = open_streams(request.name, self.languages, note=self.note, broken=self._broken, paths=request.paths, **_reading(request))
        for number, stream in enumerate(streams):
            yield stream.source, self._documents(stream, number, len(streams))
        check_found(streams, request.name, self.languages, request.source)

    def _documents(self, stream: Stream, number: int, count: int) -> Iterator[Document]:
        for document in stream:
            self._done = None if stream.done() is None else (number + stream.done()) / count
            yield document

    def _full(self, source: str, language: str | None) -> bool:
        return self._cap is not None and self._kept[source, language or ""] >= self._cap

    def _broken(self, source: str, rule: str, sample: str) -> None:
        self._filters(source).broken(rule, sample)

    def _filters(self, source: str) -> Filters:
        from braingpt.tokenizer.language import detect

        if source not in self.filters:
            self.filters[source] = Filters(self.languages, detect)
        return self.filters[source]


def _nothing_kept(name: str, filters: dict[str, Filters]) -> str:
    """The message for a preparation that would be empty: which rule dropped how much, and one example."""
    dropped: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for report in (one.report() for one in filters.values()):
        for rule, facts in report["dropped"].items():
            dropped[rule] += facts["documents"]
            samples.setdefault(rule, next(iter(facts["samples"]), ""))
    if not dropped:
        return f"'{name}' holds no documents; nothing was written"
    rules = ", ".join(f"{rule}: {count}" for rule, count in dropped.most_common())
    worst = dropped.most_common(1)[0][0]
    return f"nothing of '{name}' is left to train on; dropped {rules} (such as '{samples[worst]}'); nothing was written"
