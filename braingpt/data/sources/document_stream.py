"""A stream of documents with positions: where reading continues after an interruption, or after a network
that failed for a while.

A stream goes through the files of one source in one language: list the files, read the rows of each, make a
document of every text column of a row. After a document, `position()` is the place after it, small and fit
for JSON; `resume(position)` begins there, at the same commit of a hub dataset. A file that a network error
cuts short is opened again at the position, with growing pauses; if that fails, the preparation stops with one
line.
"""

import errno
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from braingpt.data.document import Document
from braingpt.data.sources import hub
from braingpt.data.sources.byte_reader import File
from braingpt.data.sources.columns import (
    choose_text_column,
    require_column,
    text_of_value,
    texts_of_row,
    values_at,
)
from braingpt.data.sources.quality_signals import QualitySignals
from braingpt.data.sources.read_options import BY_CONTENT, ReadOptions
from braingpt.data.sources.row import BROKEN_ROW, NOT_UTF8, Damaged, Row, encoding_hint
from braingpt.data.sources.row_reader import RowReader, sample_rows
from braingpt.errors import Failure, UserError

# Seconds between openings of a file that cannot be read; each opening has retries of its own within.
RETRY_PAUSES = (2, 5, 15, 30, 60, 60)

# The files at a commit, or at the newest one for None.
ListFiles = Callable[[str | None], hub.Listing]


@dataclass(frozen=True)
class StreamSpec:
    """The files, columns and language of one stream.

    Attributes:
        source: Name under which the documents are counted.
        language: Language of the documents; None where it is to be detected.
        label: The stream's name in messages.
        list_files: Lists the files when the stream is first read.
        id: The dataset's id on the hub; empty for the user's own files.
        columns: Columns that hold text, of which those that a row has are read; None finds one in each file.
        scores: Columns of numbers that go with each document.
        signals: Name of the file of quality signals beside each file (`QualitySignals`); None: there is none.
        revision: Branch, tag or commit that the user asked for.
        part: (2, 8) takes the second, tenth, ... of the files.
        options: What the user says about how files are to be read.
    """

    source: str
    language: str | None
    label: str
    list_files: ListFiles
    id: str = ""
    columns: tuple[str, ...] | None = None
    scores: tuple[str, ...] = ()
    signals: tuple[str, str, str, str] | None = None
    revision: str | None = None
    part: tuple[int, int] | None = None
    options: ReadOptions = BY_CONTENT


@dataclass(frozen=True)
class StreamEvents:
    """Callbacks of streams while they are read.

    Attributes:
        note: Called with a line for the user.
        broken: Called with (source, rule, sample) for what cannot become a document.
        absent: Called once for each stream when its files are listed: with the reason where the configuration
            or split is not there, with None where it is. Without `absent`, a missing one is an error.
    """

    note: Callable[[str], None]
    broken: Callable[[str, str, str], None]
    absent: Callable[[str | None], None] | None = None


@dataclass
class _Position:
    """The place after a document.

    Attributes:
        revision: Commit of the files.
        file: Number of the file.
        next: Where the next row of the file begins, as in `Row.next`.
        row: Rows of the file read so far.
        skip: Texts of the next row that are read already.
        column: The column found to hold the text of this file.
    """

    revision: str | None = None
    file: int = 0
    next: int = 0
    row: int = 0
    skip: int = 0
    column: str | None = None

    def pass_row(self, row: Row) -> None:
        self.next, self.row, self.skip = row.next, row.number, 0

    def pass_file(self) -> None:
        self.file += 1
        self.next = self.row = self.skip = 0
        self.column = None


class DocumentStream:
    """Documents of one source in one language.

    Attributes:
        spec: What the stream reads.
        available: Whether there are files; None until they were listed.
        absent_reason: Why there are no files, in words.
    """

    def __init__(self, spec: StreamSpec, events: StreamEvents) -> None:
        self.spec, self._events = spec, events
        self.source, self.language, self.label = spec.source, spec.language, spec.label
        self.available: bool | None = None
        self.absent_reason = ""
        self._listing: hub.Listing | None = None
        self._reader: RowReader | None = None
        self._signals_noted = False
        self._decisions: set[str] = set()
        self._at = _Position()

    def position(self) -> dict[str, Any]:
        """The place after the last document, for `resume`."""
        return asdict(self._at)

    def resume(self, position: Mapping[str, Any]) -> None:
        """Begin at a position of this stream. The files are listed again, at the same commit."""
        self._at = _Position(**position)
        self._listing = None

    def fraction_read(self) -> float | None:
        """Share of the stream read so far, 0 to 1: of the bytes of local files, of the number of files on the
        hub; None where unknown.
        """
        if self._listing is None or not self._listing.files:
            return None
        weights = [1 if file.size is None else file.size for file in self._listing.files]
        now = self._at.file
        current = (self._reader.fraction_read() if self._reader else 0.0) if now < len(weights) else 0.0
        if current is None:
            return None
        done = sum(weights[:now]) + (weights[now] * current if now < len(weights) else 0)
        return done / (sum(weights) or 1)

    def __iter__(self) -> Generator[Document, None, None]:
        """Documents from the position on.

        Nothing, and a call of `StreamEvents.absent`, where the configuration or split is not there. Raises
        Failure when the hub or a file cannot be read, UserError for a table without the columns.
        """
        listing = self._list_files()
        tries = 0
        while listing and self._at.file < len(listing.files):
            file = listing.files[self._at.file]
            before = replace(self._at)
            try:
                yield from self._documents_of_file(file)
                self._at.pass_file()
                tries = 0
            except Exception as error:
                # The hub's libraries have no common type of error.
                tries = tries + 1 if before == self._at else 1
                shown = self._recover(error, file, tries)
                if shown is error:
                    raise
                if shown:
                    raise shown from error
        if listing:
            self._reader = None

    def _recover(self, error: Exception, file: File, tries: int) -> Exception | None:
        """What to raise after an error within a file; None to continue: with the same file after a pause, or
        with the next one.
        """
        if isinstance(error, UserError | Failure):
            return error
        if not file.remote:
            return self._recover_local(error, file)
        label = f"{self.label}: {file.name}" if self.label else file.name
        if isinstance(error, Damaged) or hub.is_transient(error):
            if tries <= len(RETRY_PAUSES):
                if tries == 2:
                    reason = " ".join(str(error).split())[:120]
                    self._events.note(f"{label}: {reason}; trying again for some minutes")
                hub.forget_listings()
                time.sleep(RETRY_PAUSES[tries - 1])
                return None
            if isinstance(error, Damaged):
                return Failure(f"{label} is damaged ({error}) after {tries} attempts; finished work is kept")
        return hub.explain_error(error, self.spec.id, label, self.spec.revision)

    def _recover_local(self, error: Exception, file: File) -> Exception | None:
        """Count a damaged file of the user's, and continue after it."""
        if isinstance(error, Damaged):
            where = f" after row {self._at.row}" if self._at.row else ""
            self._events.broken(self.source, "broken file", f"{file.name}{where}: {error}")
            self._events.note(
                f"{file.path} cannot be read{where} ({error}); the rest of the file is skipped and counted"
            )
            self._at.pass_file()
            return None
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return Failure(f"cannot read {file.path}: {error.strerror or error}; finished work is kept")
        return error

    def _list_files(self) -> hub.Listing | None:
        """The files, listed at the first use; None where there are none."""
        if self._listing is not None:
            return self._listing
        tries = 0
        while True:
            try:
                listing = self.spec.list_files(self._at.revision)
                break
            except Exception as error:
                if hub.is_transient(error) and tries < len(RETRY_PAUSES):
                    hub.forget_listings()
                    time.sleep(RETRY_PAUSES[tries])
                    tries += 1
                    continue
                shown = hub.explain_error(error, self.spec.id, self.label, self.spec.revision)
                if shown is error:
                    raise
                if self._events.absent is None or not isinstance(shown, UserError):
                    raise shown from error
                self.available, self.absent_reason = False, str(shown)
                self._events.absent((isinstance(error, hub.Absent) and error.name) or str(shown))
                return None
        if self.spec.part:
            number, count = self.spec.part
            listing = listing._replace(files=listing.files[number - 1 :: count])
        self._listing = listing
        self._at.revision = listing.revision
        self.available = True
        if self._events.absent:
            self._events.absent(None)
        return listing

    def _documents_of_file(self, file: File) -> Iterator[Document]:
        """Documents of one file from the position on, which moves past a document before yielding it."""
        at, spec = self._at, self.spec
        columns = (at.column,) if at.column else spec.columns
        needed = [*columns, *spec.scores] if columns else None
        self._reader = reader = RowReader(file, needed, spec.options)
        signals = QualitySignals(file, spec.signals, self._note_signals) if spec.signals else None
        label = f"{spec.id} {file.name}".strip()
        checked = bool(at.next or at.row)
        with closing(reader.rows(at.next, at.row)) as rows:
            if columns is None:
                sampled, error = sample_rows(rows, at.next)
                if values := [row.values for row in sampled if row.values is not None]:
                    at.column = choose_text_column(label, values)
                    columns = (at.column,)
            else:
                sampled, error = [], None
            self._note_decision(reader)
            for row in chain(sampled, rows):
                if row.values is None or columns is None:
                    at.pass_row(row)
                    rule, reason = row.broken
                    self._events.broken(self.source, rule, f"{file.name} {reason}")
                    continue
                if not checked and not any(values_at(row.values, column) for column in columns):
                    require_column(label, columns[0], row.values)
                checked = True
                yield from self._documents_of_row(file, row, row.values, columns, signals)
            # After an error the rows have ended.
            if error:
                raise error

    def _note_decision(self, reader: RowReader) -> None:
        """Say once how files of the hub are read where that is not what their suffix says; of own files it
        was said at the beginning.
        """
        decision = reader.decision()
        if decision and self.spec.id and decision not in self._decisions:
            self._decisions.add(decision)
            self._events.note(f"{self.spec.id} {reader.file.name} is read as {decision}")

    def _note_signals(self, line: str) -> None:
        """Once is enough: where one file lacks its signals, thousands may."""
        if not self._signals_noted:
            self._signals_noted = True
            self._events.note(line)

    def _documents_of_row(
        self,
        file: File,
        row: Row,
        values: Mapping[str, Any],
        columns: tuple[str, ...],
        signals: QualitySignals | None,
    ) -> Iterator[Document]:
        """A document for every text column of a row that has one."""
        texts = texts_of_row(values, columns)
        place = f"{file.name} row {row.number}"
        if not texts:
            self._at.pass_row(row)
            names = ", ".join(map(str, values))[:80]
            reason = f"{place} has no column {' or '.join(columns)}; it has {names}"
            self._events.broken(self.source, BROKEN_ROW, reason)
            return
        scores = self._scores_of_row(values, row, signals)
        skip = self._at.skip
        for number, (column, element, value) in enumerate(texts):
            if number < skip:
                continue
            if number + 1 < len(texts):
                self._at.skip = number + 1
            else:
                self._at.pass_row(row)
            text, rule = text_of_value(value)
            if rule:
                hint = encoding_hint(text.encode("utf-8", "surrogateescape")) if rule == NOT_UTF8 else ""
                kind = f" is {type(value).__name__}, no text" if rule == BROKEN_ROW else ""
                self._events.broken(self.source, rule, f"{place}, column {column}{kind}{hint}")
            else:
                id = f"{file.name}:{row.number}{element}" + (f":{column}" if len(columns) > 1 else "")
                yield Document(text, self.language, self.source, id, scores)

    def _scores_of_row(
        self, values: Mapping[str, Any], row: Row, signals: QualitySignals | None
    ) -> dict[str, float] | None:
        scores = {
            name: values[name] for name in self.spec.scores if isinstance(values.get(name), int | float)
        }
        return {**scores, **(signals.of(row.number) if signals else {})} or None
