"""Rows of a table as text: columns between delimiters, quoted cells and lines within cells.

A quote that opens a cell and is not closed as a table closes one is text. Files without quoting hold such
marks; read as quoting, one of them would make all rows up to the next a single cell.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from braingpt.data.sources import byte_reader
from braingpt.data.sources.byte_reader import skip_line
from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, Damaged, Row

# The delimiter of a table with one column: it separates nothing.
NO_DELIMITER = "\x1f"
NUMBER = re.compile(r"\s*[-+]?\d[\d.,:/-]*\s*$")


@dataclass(frozen=True)
class TableForm:
    """How a table is written.

    Attributes:
        delimiter: The character between columns.
        names: Names of the columns where the table has no header line.
        skipped: Lines before the header, such as `sep=;`.
        escape: The character before a quote within a quoted cell, where it is not another quote.
    """

    delimiter: str
    names: tuple[str, ...] = ()
    skipped: int = 0
    escape: str | None = None

    def reader(self, lines: Iterator[str], strict: bool = True) -> Iterator[list[str]]:
        """The csv reader of lines of this form."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            strict=strict,
            escapechar=self.escape,
            doublequote=self.escape is None,
        )


def rows_of_table(reader: io.BufferedReader, form: TableForm, start: int, number: int) -> Iterator[Row]:
    """Rows from byte `start` on, 0 for the first; `number` rows come before.

    `reader` is at the beginning of the file, whose header is read in any case. Raises Damaged where the
    header cannot be read.
    """
    lines = _Lines(reader)
    csv.field_size_limit(byte_reader.MAX_LINE)
    for _ in range(form.skipped):
        next(lines, "")
    header = list(form.names) or _header(lines, form)
    if start:
        lines.skip_to(start)
    rows, width, taken = form.reader(lines), len(header), lines.taken
    while True:
        taken.clear()
        try:
            cells = next(rows)
            swallowed = len(taken) > 1 and _is_swallowed(taken, form, width)
        except StopIteration:
            return
        except csv.Error:
            swallowed = True
        if swallowed:
            cells = split_line(taken[0][0], form)
            lines.give_back()
        too_long = lines.skipped_long and any(line[2] for line in taken)
        if not cells and not too_long:
            continue
        number += 1
        if len(cells) == width and not too_long:
            yield Row(number, lines.at, dict(zip(header, cells, strict=True)))
            continue
        if too_long:
            reason = f"row {number} is longer than {byte_reader.MAX_LINE >> 20} MB"
            yield Row(number, lines.at, None, (LINE_TOO_LONG, reason))
        elif len(cells) > len(header) and any(map(str.strip, cells[len(header) :])):
            excerpt = form.delimiter.join(cells)[:60]
            reason = f"row {number} has {len(cells)} columns, not {len(header)}: {excerpt}"
            yield Row(number, lines.at, None, (BROKEN_ROW, reason))
        else:
            missing = [None] * (len(header) - len(cells))
            yield Row(number, lines.at, dict(zip(header, [*cells, *missing], strict=False)))


def split_line(line: str, form: TableForm) -> list[str]:
    """The cells of a line, in which a quote counts only where one closes it before the end of its cell."""
    line, cells, at = line.rstrip("\r\n").removeprefix("\ufeff"), [], 0
    delimiter = re.escape(form.delimiter)
    closed = re.compile(rf'"((?:[^"]|"")*)"(?={delimiter}|$)')
    while True:
        quoted = closed.match(line, at)
        end = quoted.end() if quoted else line.find(form.delimiter, at)
        if quoted:
            cells.append(quoted[1].replace('""', '"'))
        else:
            cells.append(line[at:] if end < 0 else line[at:end])
        if end < 0 or end >= len(line):
            return cells
        at = end + len(form.delimiter)


def is_number(cell: str | None) -> bool:
    """Whether a cell holds a number, a date or a time."""
    return cell is not None and bool(NUMBER.match(cell))


def _header(lines: "_Lines", form: TableForm) -> list[str]:
    """Names of the columns, each once."""
    cells: list[str] = []
    while not any(map(str.strip, cells)):
        lines.taken.clear()
        try:
            cells = next(form.reader(lines))
        except StopIteration:
            return []
        except csv.Error as error:
            cells = split_line(lines.taken[0][0], form)
            lines.give_back()
            if lines.taken[0][2]:
                raise Damaged(f"not a readable table: {error}") from error
    names: list[str] = []
    for cell in cells:
        name = cell.strip().removeprefix("\ufeff").strip('"')
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return names


# A line's text, its bytes, and whether it was too long to keep.
_Line = tuple[str, int, bool]


def _is_swallowed(lines: list[_Line], form: TableForm, width: int) -> bool:
    """Whether the lines of one quoted cell are rows of their own, which a stray quote made one: each has as
    many cells as the header, and where commas separate, numbers at the same places, because prose has commas
    too.
    """
    # The cheap question first: most cells of several lines are meant so.
    if width < 2 or any(
        text.count(form.delimiter) + 1 < width
        or ('"' not in text and text.count(form.delimiter) + 1 != width)
        for text, *_ in lines
        if text.strip()
    ):
        return False
    rows = [split_line(text, form) for text, *_ in lines if text.strip()]
    if any(len(cells) != width for cells in rows):
        return False
    if form.delimiter != ",":
        return True
    patterns = {tuple(is_number(cell) for cell in cells) for cells in rows}
    return len(patterns) == 1 and any(*patterns)


class _Lines(Iterator[str]):
    """Lines of a table for the csv reader, and how far into the file they go.

    Bytes that are not UTF-8 become surrogates (PEP 383), so that one bad cell costs a document and not the
    file; whoever takes a text checks it.

    Attributes:
        at: Bytes taken so far.
        taken: Lines of the row that is read.
        skipped_long: Whether any line was too long to keep.
    """

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self.at = 0
        self.taken: list[_Line] = []
        self.skipped_long = False
        # Lines that were given back.
        self._waiting: deque[_Line] = deque()

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._read()
        self.at += line[1]
        self.taken.append(line)
        return line[0]

    def _read(self) -> _Line:
        line = self._reader.readline(byte_reader.MAX_LINE)
        if not line:
            raise StopIteration
        if len(line) >= byte_reader.MAX_LINE and not line.endswith(b"\n"):
            self.skipped_long = True
            return "\n", len(line) + skip_line(self._reader), True
        text = line.decode("utf-8", "surrogateescape").replace("\0", "")
        return text if self.at else text.removeprefix("\ufeff"), len(line), False

    def give_back(self) -> None:
        """All lines taken but the first are read again."""
        for line in reversed(self.taken[1:]):
            self.at -= line[1]
            self._waiting.appendleft(line)
        del self.taken[1:]

    def skip_to(self, at: int) -> None:
        """Read to byte `at` of the file."""
        while self.at < at and self._waiting:
            self.at += self._waiting.popleft()[1]
        while self.at < at and (block := self._reader.read(min(byte_reader.BUFFER, at - self.at))):
            self.at += len(block)
