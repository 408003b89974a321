"""A stream of documents with positions: where reading goes on after an interruption, or after a network that
failed for a while.

`position()` after a document is the place behind it, small and JSON-able; `resume(position)` begins there, at
the same commit of a hub dataset. A file that cannot be read on for want of a network is opened again at the
position, with growing pauses; only then the preparation stops, with one line.
"""

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

from braingpt.data.document import Document
from braingpt.data.sources import byte_reader, hub
from braingpt.data.sources.byte_reader import File
from braingpt.data.sources.quality_signals import Signals
from braingpt.data.sources.row_reader import Damaged, Reader, Row, choose, encoding_hint, require
from braingpt.errors import Failure, UserError

# seconds between openings of a file that cannot be read on; each opening has retries of its own within
PAUSES = (2, 5, 15, 30, 60, 60)

# one line for the user
OnNote = Callable[[str], None]
# (source, rule, sample): counts what cannot become a document
OnBroken = Callable[[str, str, str], None]
# the files, at a commit or at the newest one
ListFiles = Callable[[str | None], hub.Listing]


class DocumentStream:
    """Documents of one source in one language (None: to be detected)."""

    def __init__(
        self,
        source: str,
        language: str | None,
        label: str,
        list_files: ListFiles,
        note: OnNote,
        broken: OnBroken,
        *,
        id: str = "",
        columns: tuple[str, ...] | None = None,
        scores: tuple[str, ...] = (),
        signals: tuple[str, str, str, str] | None = None,
        absent: Callable[[str | None], None] | None = None,
        revision: str | None = None,
        part: tuple[int, int] | None = None,
    ) -> None:
        """`columns`: of these the ones a row has; None finds one in each file.

        `absent`: told why there is nothing, or None when there is.

        `part`: (2, 8) takes the second, tenth, ... of the files.
        """
        self.source, self.language, self.label = source, language, label
        # unknown until it was opened
        self.found: bool | None = None
        # why nothing was found
        self.reason = ""
        self._list, self._note, self._broken, self._absent, self._id, self._asked = (
            list_files,
            note,
            broken,
            absent,
            id,
            revision,
        )
        self._columns, self._scores, self._signals = columns, scores, signals
        self._part = part
        self._listing: hub.Listing | None = None
        self._reader: Reader | None = None
        self._signals_noted = False
        self._at = self._start()

    @staticmethod
    def _start() -> dict[str, Any]:
        return {"revision": None, "file": 0, "next": 0, "row": 0, "skip": 0, "column": None}

    def position(self) -> dict[str, Any]:
        """The place behind the last document, for `resume`: commit, file, place in it, count of rows, columns
        of the next row given already.
        """
        return dict(self._at)

    def resume(self, position: dict[str, Any]) -> None:
        """Begin at a position of this stream. The files are listed anew, at the same commit."""
        self._at = {**self._start(), **position}
        self._listing = None

    def done(self) -> float | None:
        """Share of the stream read so far, 0 to 1: of the bytes of local files, of the number of files on the
        hub; None where unknown.
        """
        if self._listing is None or not self._listing.files:
            return None
        weights = [1 if file.size is None else file.size for file in self._listing.files]
        now = self._at["file"]
        current = (self._reader.share() if self._reader else 0.0) if now < len(weights) else 0.0
        if current is None:
            return None
        return (sum(weights[:now]) + (weights[now] * current if now < len(weights) else 0)) / (
            sum(weights) or 1
        )

    def __iter__(self) -> Iterator[Document]:
        """Documents from the position on. Nothing, and a note, where the configuration or split is not there.

        Raises Failure when the hub or a file cannot be read, UserError for a table without the columns.
        """
        listing = self._listed()
        tries = 0
        while listing and self._at["file"] < len(listing.files):
            file = listing.files[self._at["file"]]
            before = self.position()
            try:
                yield from self._file(file)
                self._next_file()
                tries = 0
            except Exception as error:
                # the hub's libraries have no common type
                tries = tries + 1 if before == self._at else 1
                shown = self._after(error, file, tries)
                if shown is error:
                    raise
                if shown:
                    raise shown from error
        if listing:
            self._reader = None

    def _after(self, error: Exception, file: File, tries: int) -> Exception | None:
        """What to raise after an error within a file; None to go on: with the same file after a pause, or
        with the next one.
        """
        if isinstance(error, UserError | Failure):
            return error
        label = f"{self.label}: {file.name}" if self.label else file.name
        if isinstance(error, Damaged) and not file.remote:
            where = f" after row {self._at['row']}" if self._at["row"] else ""
            self._broken(self.source, "broken file", f"{file.name}{where}: {error}")
            self._note(f"{file.path} cannot be read{where} ({error}); its rest is skipped and counted")
            self._next_file()
            return None
        if file.remote and (isinstance(error, Damaged) or hub.passing(error)):
            if tries <= len(PAUSES):
                if tries == 2:
                    self._note(
                        f"{label}: {' '.join(str(error).split())[:120]}; trying again for some minutes"
                    )
                hub.forget()
                time.sleep(PAUSES[tries - 1])
                return None
            if isinstance(error, Damaged):
                return Failure(
                    f"{label} is damaged ({error}) and came so {tries} times; what is finished is kept"
                )
        if not file.remote:
            known = isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT)
            return (
                Failure(f"cannot read {file.path}: {error.strerror or error}; what is finished is kept")
                if known
                else error
            )
        return hub.explain(error, self._id, label, self._asked)

    def _next_file(self) -> None:
        self._at.update(file=self._at["file"] + 1, next=0, row=0, skip=0, column=None)

    def _listed(self) -> hub.Listing | None:
        """The files, listed at the first use; None where there are none."""
        if self._listing is None:
            tries = 0
            while self._listing is None:
                try:
                    self._listing = self._list(self._at["revision"])
                except Exception as error:
                    if hub.passing(error) and tries < len(PAUSES):
                        hub.forget()
                        time.sleep(PAUSES[tries])
                        tries += 1
                        continue
                    shown = hub.explain(error, self._id, self.label, self._asked)
                    if shown is error:
                        raise
                    if self._absent is None or not isinstance(shown, UserError):
                        raise shown from error
                    self.found, self.reason = False, str(shown)
                    self._absent((isinstance(error, hub.Absent) and error.short) or str(shown))
                    return None
            if self._part:
                number, count = self._part
                self._listing = self._listing._replace(files=self._listing.files[number - 1 :: count])
            self._at["revision"] = self._listing.revision
            self.found = True
            if self._absent:
                self._absent(None)
        return self._listing

    def _file(self, file: File) -> Iterator[Document]:
        """Documents of one file from the position on, which is moved behind each of them before it is given."""
        at = self._at
        columns = (at["column"],) if at["column"] else self._columns
        wanted = [*columns, *self._scores] if columns else None
        self._reader = reader = Reader(file, wanted)
        signals = Signals(file, self._signals, self._note_signals) if self._signals else None
        label = f"{self._id} {file.name}".strip()
        looked = bool(at["next"] or at["row"])
        rows = reader.rows(at["next"], at["row"])
        try:
            for row in rows:
                if row.values is None:
                    self._pass(row)
                    self._broken(self.source, row.broken[0], f"{file.name} {row.broken[1]}")  # type: ignore[index]
                    continue
                if columns is None:
                    columns = (choose(label, row.values),)
                    at["column"] = columns[0]
                elif not looked and not any(column in row.values for column in columns):
                    require(label, columns[0], row.values)
                looked = True
                yield from self._documents(file, row, columns, signals)
        finally:
            rows.close()  # type: ignore[attr-defined]

    def _note_signals(self, line: str) -> None:
        """Once is enough: where one file lacks its signals, thousands may."""
        if not self._signals_noted:
            self._signals_noted = True
            self._note(line)

    def _documents(
        self, file: File, row: Row, columns: tuple[str, ...], signals: Signals | None
    ) -> Iterator[Document]:
        """A document for every text column of a row that has one."""
        values = row.values or {}
        present = [column for column in columns if column in values]
        if not present:
            self._pass(row)
            names = ", ".join(map(str, values))[:80]
            self._broken(
                self.source,
                "broken row",
                f"{file.name} row {row.number} has no column {' or '.join(columns)}; it has {names}",
            )
            return
        scores = self._scores_of(values, row, signals)
        skip = self._at["skip"]
        for number, column in enumerate(present):
            if number < skip:
                continue
            if number + 1 < len(present):
                self._at["skip"] = number + 1
            else:
                self._pass(row)
            text, rule = _text(values[column])
            if rule:
                shown = encoding_hint(text.encode("utf-8", "surrogateescape")) if rule == "not UTF-8" else ""
                self._broken(self.source, rule, f"{file.name} row {row.number}, column {column}{shown}")
            else:
                place = f"{file.name}:{row.number}" + (f":{column}" if len(columns) > 1 else "")
                yield Document(text, self.language, self.source, place, scores)

    def _pass(self, row: Row) -> None:
        self._at.update(next=row.next, row=row.number, skip=0)

    def _scores_of(
        self, values: dict[str, Any], row: Row, signals: Signals | None
    ) -> dict[str, float] | None:
        numbers = {name: values[name] for name in self._scores if isinstance(values.get(name), int | float)}
        return {**numbers, **(signals.of(row.number) if signals else {})} or None


def _text(value: Any) -> tuple[str, str | None]:
    """A column's text, or the rule that counts it: a string, a list of characters (KLUE ner), or turns of a
    dialogue (KLUE wos).
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "".join(value)
    elif isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        turns = [turn.get("text", turn.get("content")) for turn in value]
        value = "\n".join(turns) if all(isinstance(turn, str) for turn in turns) else turns
    if not isinstance(value, str):
        return "", "empty" if value is None else "broken row"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        # bytes that were not UTF-8, or half of a surrogate pair in a JSON escape
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), "not UTF-8"
    # a parquet file has no lines that a reader could end
    if size > byte_reader.LINE:
        return "", "line too long"
    return value, None if value.strip() else "empty"
