"""Rows of one file, with the place of each: txt, md, jsonl, json, csv, tsv and parquet, local or on the hub.

`rows` yields whole rows and broken ones alike, each with the place after it, so that reading can stop
anywhere, go on there, and count every loss once. Memory is one block and one row of at most `opening.LINE`
bytes. What is broken inside a readable file is a `Row` with a reason; a file that cannot be read on (cut
short, not the format its name says) raises Damaged.
"""

import codecs
import csv
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from braingpt.data.sources import byte_reader
from braingpt.data.sources.byte_reader import Bytes, File, kind, open_raw
from braingpt.errors import UserError, did_you_mean

# bytes: a longer text file is cut into documents near this size, at an empty line where there is one
PIECE = 64 * 1024
# bytes of a parquet file decoded at once
BATCH = 8 << 20
TEXT_COLUMNS = (
    "text",
    "content",
    "raw_content",
    "document",
    "body",
    "article",
    "sentence",
    "context",
    "본문",
    "내용",
)
PLAIN = (".txt", ".md")
JSON = (".jsonl", ".json", ".ndjson")
TABLES = (".csv", ".tsv")
SUFFIXES = (*PLAIN, *JSON, *TABLES, ".parquet")


class Damaged(Exception):
    """The file cannot be read on: cut short, or not what its name says."""


class Row(NamedTuple):
    """A row's number, counted from 1, its values by column, and where the next begins (bytes of decompressed
    text; rows of a parquet file).

    `broken`: instead of values, the rule that counts the row ("broken row", "not UTF-8", "line too long") and
        what is wrong with it.
    """

    number: int
    next: int
    values: dict[str, Any] | None
    broken: tuple[str, str] | None = None


class Reader:
    """Reads one file from a place on. `share()` is the part of it read so far, or None where nobody knows."""

    def __init__(self, file: File, columns: list[str] | None = None) -> None:
        """`columns`: what is needed of a parquet file; None for all. Other formats give every column."""
        self.file, self.columns = file, columns
        self._bytes: Any = None
        self._parquet_rows = (0, 0)

    def share(self) -> float | None:
        done, total = self._parquet_rows
        if total:
            return done / total
        return self._bytes.share() if self._bytes else None

    def rows(self, start: int = 0, number: int = 0) -> Iterator[Row]:
        """Rows from `start`, the `next` of the row before; `number` is the count of rows before it.

        Raises Damaged, OSError, and the HTTP library's errors for a file on the hub.
        """
        suffix = kind(self.file.name)
        if suffix == ".parquet":
            yield from self._parquet(start)
            return
        try:
            self._bytes = Bytes(self.file, 0 if suffix in TABLES else start)
            with self._bytes as reader:
                if suffix in PLAIN:
                    yield from _pieces(reader, start, number)
                elif suffix in TABLES:
                    yield from self._table(reader, "\t" if suffix == ".tsv" else ",", start, number)
                elif suffix == ".json" and _starts_with_bracket(self.file, start, reader):
                    yield from _array(reader, start, number)
                else:
                    yield from _lines_of_json(reader, start, number)
        except UnicodeError as error:
            raise Damaged(f"not the UTF-16 its first bytes announce: {error}") from error
        except OSError as error:
            # as pyarrow's decompressors raise
            if type(error) is OSError and error.errno is None:
                raise Damaged(str(error)) from error
            raise

    def _table(self, reader: io.BufferedReader, delimiter: str, start: int, number: int) -> Iterator[Row]:
        lines = _Lines(reader)
        csv.field_size_limit(byte_reader.LINE)
        header_line = lines.first()
        if delimiter == "," and "," not in header_line and ";" in header_line:
            delimiter = ";"
        try:
            header = [
                name.strip()
                for name in next(csv.reader(itertools.chain([header_line], lines), delimiter=delimiter), [])
            ]
        except csv.Error as error:
            raise Damaged(f"not a readable table: {error}") from error
        if start:
            lines.skip_to(start)
        rows = csv.reader(lines, delimiter=delimiter)
        while True:
            began = lines.count
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Row(
                    number,
                    lines.at,
                    None,
                    ("broken row", f"{lines.count - began} lines from row {number} on: {error}"),
                )
                continue
            number += 1
            if lines.too_long:
                lines.too_long = False
                yield Row(
                    number,
                    lines.at,
                    None,
                    ("line too long", f"row {number} is longer than {byte_reader.LINE >> 20} MB"),
                )
            elif not row:
                number -= 1
            elif len(row) > len(header) and any(map(str.strip, row[len(header) :])):
                yield Row(
                    number,
                    lines.at,
                    None,
                    ("broken row", f"row {number} has {len(row)} columns, not {len(header)}"),
                )
            else:
                yield Row(number, lines.at, dict(itertools.zip_longest(header, row[: len(header)])))

    def _parquet(self, start: int) -> Iterator[Row]:
        import pyarrow
        import pyarrow.parquet

        raw = open_raw(self.file)
        try:
            with raw, pyarrow.parquet.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20) as table:
                before = 0
                for group in range(table.metadata.num_row_groups):
                    facts = table.metadata.row_group(group)
                    if before + facts.num_rows > start:
                        size = facts.total_byte_size // max(1, facts.num_rows) + 1
                        batches = table.iter_batches(
                            max(1, min(1024, BATCH // size)), row_groups=[group], columns=self._present(table)
                        )
                        for row in _batches(batches, before, start):
                            self._parquet_rows = row.next, table.metadata.num_rows
                            yield row
                    before += facts.num_rows
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise Damaged(f"not a readable parquet file ({str(error)[:160]})") from error
        except OSError as error:
            if type(error) is OSError and error.errno is None:
                raise Damaged(f"not a readable parquet file ({str(error)[:160]})") from error
            raise

    def _present(self, table: Any) -> list[str] | None:
        """Of the columns wanted those the file has; all of them when it has none, so that a message can name
        them.
        """
        names = table.schema_arrow.names
        return [name for name in names if name in self.columns] or None if self.columns else None


def _batches(batches: Iterator[Any], before: int, start: int) -> Iterator[Row]:
    for batch in batches:
        size, first = batch.num_rows, max(0, start - before)
        if first < size:
            batch = batch.slice(first)
            try:
                values: list[Any] = batch.to_pylist()
            except UnicodeDecodeError:
                values = [_values(batch, at) for at in range(batch.num_rows)]
            for number, row in enumerate(values, before + first + 1):
                broken = None if row is not None else ("not UTF-8", f"row {number}")
                yield Row(number, number, row, broken)
        before += size


def _values(batch: Any, at: int) -> dict[str, Any] | None:
    try:
        return batch.slice(at, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _pieces(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    """A text in pieces of at most twice PIECE bytes, cut after an empty line, else a line, else a space, else
    a whole character.
    """
    rest = b""
    ended = False
    while not ended:
        # what is there now: a slow pipe stays interruptible
        block = reader.read1(PIECE)
        rest, ended = rest + block, not block
        while len(rest) >= 2 * PIECE or (ended and rest):
            cut = _cut(rest) if len(rest) >= 2 * PIECE else len(rest)
            piece, rest = rest[:cut], rest[cut:]
            at += cut
            number += 1
            try:
                yield Row(number, at, {"text": piece.decode("utf-8-sig" if number == 1 else "utf-8")})
            except UnicodeDecodeError:
                yield Row(number, at, None, ("not UTF-8", f"piece {number}{encoding_hint(piece)}"))


def _cut(data: bytes) -> int:
    for mark in (b"\n\n", b"\n", b" "):
        at = data.find(mark, PIECE, 2 * PIECE)
        if at >= 0:
            return at + len(mark)
    at = 2 * PIECE - 4
    # a continuation byte of UTF-8
    while at > PIECE and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _lines_of_json(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    while line := reader.readline(byte_reader.LINE):
        size, whole = len(line), len(line) < byte_reader.LINE or line.endswith(b"\n")
        if not whole:
            size += _discard_line(reader)
        at += size
        number += 1
        if not whole:
            yield Row(
                number,
                at,
                None,
                ("line too long", f"line {number} has {size >> 20} MB, more than {byte_reader.LINE >> 20}"),
            )
        elif line.strip():
            yield Row(number, at, *_json(line, number))


def _json(line: bytes, number: int) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return None, ("not UTF-8", f"line {number}{encoding_hint(line)}")
    except (ValueError, RecursionError):
        return None, ("broken row", f"line {number}: {line[:60].decode('utf-8', 'replace')}")
    return _object(row, f"line {number}")


def _object(row: Any, place: str) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    # a list of plain texts
    if isinstance(row, str):
        return {"text": row}, None
    return (row, None) if isinstance(row, dict) else (None, ("broken row", f"{place} is not an object"))


def _discard_line(reader: io.BufferedReader) -> int:
    """Read to the end of a line nobody can keep in memory; its length in bytes."""
    size = 0
    while block := reader.readline(byte_reader.BUFFER):
        size += len(block)
        if block.endswith(b"\n"):
            break
    return size


def _starts_with_bracket(file: File, start: int, reader: io.BufferedReader) -> bool:
    if not start:
        return reader.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
    with Bytes(file) as beginning:
        return _starts_with_bracket(file, 0, beginning)


def _array(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    """Elements of one JSON array, read as they come, whatever the array's size."""
    decoder = json.JSONDecoder()
    text, ended = "", False
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    while True:
        body = text.lstrip(" \t\r\n,[\ufeff" if number == 0 else " \t\r\n,")
        at += _size(text[: len(text) - len(body)])
        text = body
        if body.startswith("]"):
            return
        try:
            row, end = decoder.raw_decode(body)
            # a number may go on in the next block
            if end == len(body) and not ended:
                raise ValueError
        except (ValueError, RecursionError) as error:
            if ended or len(text) > byte_reader.LINE:
                where = f"element {number + 1} of its list"
                raise Damaged(
                    f"{where} is longer than {byte_reader.LINE >> 20} MB"
                    if not ended
                    else f"{where} is broken: {error}"
                ) from error
            # doubling keeps re-reading a long element linear
            block = reader.read(max(byte_reader.BUFFER, len(text)))
            text, ended = text + decode(block, final=not block), not block
            continue
        at += _size(body[:end])
        text = body[end:]
        number += 1
        yield Row(number, at, *_object(row, f"element {number}"))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


class _Lines(Iterator[str]):
    """Lines of a table for the csv reader, and how far into the file they go.

    Bytes that are not UTF-8 become surrogates (PEP 383), so that one bad cell costs a document and not the
    file; whoever takes a text checks it.
    """

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader
        self.at = self.count = 0
        self.too_long = False

    def __next__(self) -> str:
        line = self._reader.readline(byte_reader.LINE)
        if not line:
            raise StopIteration
        self.at += len(line)
        self.count += 1
        if len(line) >= byte_reader.LINE and not line.endswith(b"\n"):
            self.at += _discard_line(self._reader)
            self.too_long = True
            return "\n"
        return line.decode("utf-8", "surrogateescape").replace("\0", "")

    def first(self) -> str:
        """The first line, without a byte-order mark."""
        return next(self, "").removeprefix("\ufeff")

    def skip_to(self, at: int) -> None:
        while self.at < at and (block := self._reader.read(min(byte_reader.BUFFER, at - self.at))):
            self.at += len(block)


def encoding_hint(raw: bytes) -> str:
    """What to do with bytes that are not UTF-8 when they read as the older Korean encoding, and what they
    look like.
    """
    try:
        korean = any(
            "가" <= character <= "힣"
            for character in raw[:4096].decode("cp949", "strict" if len(raw) < 4096 else "ignore")
        )
    except UnicodeDecodeError:
        korean = False
    shown = raw[:60].decode("cp949" if korean else "utf-8", "replace")
    return (" (CP949: iconv -f cp949 -t utf-8)" if korean else "") + f": {shown}"


def choose(label: str, row: dict[str, Any]) -> str:
    """The column that holds the text: one with a usual name, or the only one with text in it.

    UserError where it cannot be told.
    """
    by_name = {name.lower(): name for name in reversed(list(row))}
    for usual in TEXT_COLUMNS:
        if usual in by_name:
            return by_name[usual]
    textual = [name for name, value in row.items() if isinstance(value, str) and any(map(str.isalpha, value))]
    if len(textual) == 1:
        return textual[0]
    columns = ", ".join(map(str, row))
    if not any(isinstance(value, str) for value in row.values()):
        raise UserError(f"{label} has no text column; its columns are {columns}")
    raise UserError(
        f"cannot tell which column of {label} is the text; name it with --column, one of {columns}"
    )


def require(label: str, column: str, row: dict[str, Any]) -> None:
    """UserError when the file has no such column."""
    if column not in row:
        raise UserError(f"{label} has no column '{column}'{did_you_mean(column, map(str, row))}")
