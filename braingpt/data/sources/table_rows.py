"""Rows of a table as text: csv and tsv with a header line, quoted cells and lines within cells.

A comma-separated file whose header has semicolons and no comma is read as separated by semicolons.
"""

import csv
import io
import itertools
from collections.abc import Iterator

from braingpt.data.sources import byte_reader
from braingpt.data.sources.byte_reader import skip_line
from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, Damaged, Row


def rows_of_table(reader: io.BufferedReader, delimiter: str, start: int, number: int) -> Iterator[Row]:
    """Rows from byte `start` on, 0 for the first; `number` rows come before.

    `reader` is at the beginning of the file, whose header is read in any case. Raises Damaged where the
    header cannot be read.
    """
    lines = _Lines(reader)
    csv.field_size_limit(byte_reader.MAX_LINE)
    header_line = lines.first()
    if delimiter == "," and "," not in header_line and ";" in header_line:
        delimiter = ";"
    header = _header(header_line, lines, delimiter)
    if start:
        lines.skip_to(start)
    rows = csv.reader(lines, delimiter=delimiter)
    while True:
        lines_before = lines.count
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            reason = f"{lines.count - lines_before} lines from row {number} on: {error}"
            yield Row(number, lines.at, None, (BROKEN_ROW, reason))
            continue
        if not cells and not lines.too_long:
            continue
        number += 1
        if lines.too_long:
            lines.too_long = False
            reason = f"row {number} is longer than {byte_reader.MAX_LINE >> 20} MB"
            yield Row(number, lines.at, None, (LINE_TOO_LONG, reason))
        elif len(cells) > len(header) and any(map(str.strip, cells[len(header) :])):
            reason = f"row {number} has {len(cells)} columns, not {len(header)}"
            yield Row(number, lines.at, None, (BROKEN_ROW, reason))
        else:
            yield Row(number, lines.at, dict(itertools.zip_longest(header, cells[: len(header)])))


def _header(header_line: str, lines: "_Lines", delimiter: str) -> list[str]:
    cells = csv.reader(itertools.chain([header_line], lines), delimiter=delimiter)
    try:
        return [name.strip() for name in next(cells, [])]
    except csv.Error as error:
        raise Damaged(f"not a readable table: {error}") from error


class _Lines(Iterator[str]):
    """Lines of a table for the csv reader, and how far into the file they go.

    Bytes that are not UTF-8 become surrogates (PEP 383), so that one bad cell costs a document and not the
    file; whoever takes a text checks it.
    """

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        # Bytes and lines read so far.
        self.at = self.count = 0
        self.too_long = False

    def __next__(self) -> str:
        line = self._reader.readline(byte_reader.MAX_LINE)
        if not line:
            raise StopIteration
        self.at += len(line)
        self.count += 1
        if len(line) >= byte_reader.MAX_LINE and not line.endswith(b"\n"):
            self.at += skip_line(self._reader)
            self.too_long = True
            return "\n"
        return line.decode("utf-8", "surrogateescape").replace("\0", "")

    def first(self) -> str:
        """The first line, without a byte-order mark."""
        return next(self, "").removeprefix("\ufeff")

    def skip_to(self, at: int) -> None:
        """Read to byte `at` of the file."""
        while self.at < at and (block := self._reader.read(min(byte_reader.BUFFER, at - self.at))):
            self.at += len(block)
