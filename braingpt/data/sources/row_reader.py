"""Rows of one file, with the place of each: txt, md, jsonl, json, csv, tsv and parquet, local or on the hub.

`RowReader.rows` yields intact and broken rows, each with the place after it, so that reading can stop
anywhere, continue there, and count every loss once. Memory is one block and one row of at most
`byte_reader.MAX_LINE` bytes. What is broken inside a readable file is a `Row` with a reason; a file that
cannot be read to its end (cut short, not the format its name says) raises Damaged.

    for row in RowReader(local_file(Path("texts.jsonl"))).rows():
        print(row.number, row.values or row.broken)
"""

import io
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from braingpt.data.sources.byte_reader import ByteReader, File, format_suffix
from braingpt.data.sources.json_rows import rows_of_array, rows_of_lines, starts_with_bracket
from braingpt.data.sources.parquet_rows import rows_of_parquet
from braingpt.data.sources.row import NOT_UTF8, Damaged, Row, encoding_hint
from braingpt.data.sources.table_rows import rows_of_table
from braingpt.errors import UserError, did_you_mean

# Bytes of a document that a longer plain text is cut into, at an empty line where there is one.
PIECE = 64 * 1024
# Names of a text column, the likeliest first.
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


class RowReader:
    """Reads one file from a place on."""

    def __init__(self, file: File, columns: list[str] | None = None) -> None:
        """`columns`: what is needed of a parquet file, None for all; other formats give every column."""
        self.file, self.columns = file, columns
        self._bytes: ByteReader | None = None
        # Rows of a parquet file read so far, and all of them.
        self._parquet_rows = (0, 0)

    def fraction_read(self) -> float | None:
        """Share of the file read so far, 0 to 1; None where it cannot be known."""
        done, total = self._parquet_rows
        if total:
            return done / total
        return self._bytes.fraction_read() if self._bytes else None

    def rows(self, start: int = 0, number: int = 0) -> Generator[Row, None, None]:
        """Rows from a place on.

        Args:
            start: `next` of the row before the first one wanted.
            number: Number of rows before the first one wanted.

        Returns:
            An iterator over intact and broken rows in the order of the file.

        Raises:
            Damaged: The file cannot be read to its end.
            OSError: The file cannot be opened or read. A file on the hub also raises the HTTP library's
                errors.
        """
        suffix = format_suffix(self.file.name)
        if suffix == ".parquet":
            yield from rows_of_parquet(self.file, self.columns, start, self._count_parquet_rows)
            return
        try:
            self._bytes = ByteReader(self.file, 0 if suffix in TABLES else start)
            with self._bytes as reader:
                if suffix in PLAIN:
                    yield from _rows_of_text(reader, start, number)
                elif suffix in TABLES:
                    yield from rows_of_table(reader, "\t" if suffix == ".tsv" else ",", start, number)
                elif suffix == ".json" and starts_with_bracket(self.file, start, reader):
                    yield from rows_of_array(reader, start, number)
                else:
                    yield from rows_of_lines(reader, start, number)
        except UnicodeError as error:
            raise Damaged(f"not the UTF-16 its first bytes announce: {error}") from error
        except OSError as error:
            # pyarrow's decompressors report broken contents as an OSError without a number.
            if type(error) is OSError and error.errno is None:
                raise Damaged(str(error)) from error
            raise

    def _count_parquet_rows(self, done: int, total: int) -> None:
        self._parquet_rows = done, total


def _rows_of_text(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    """A plain text in pieces of at most twice PIECE bytes, each a row."""
    unread = b""
    ended = False
    while not ended:
        # `read1` takes what is there now, so that a slow pipe stays interruptible.
        block = reader.read1(PIECE)
        unread, ended = unread + block, not block
        while len(unread) >= 2 * PIECE or (ended and unread):
            cut = _cut_place(unread) if len(unread) >= 2 * PIECE else len(unread)
            piece, unread = unread[:cut], unread[cut:]
            at += cut
            number += 1
            try:
                yield Row(number, at, {"text": piece.decode("utf-8-sig" if number == 1 else "utf-8")})
            except UnicodeDecodeError:
                yield Row(number, at, None, (NOT_UTF8, f"piece {number}{encoding_hint(piece)}"))


def _cut_place(data: bytes) -> int:
    """Where to cut a long text: after an empty line, else a line, else a space, else after a character."""
    for mark in (b"\n\n", b"\n", b" "):
        at = data.find(mark, PIECE, 2 * PIECE)
        if at >= 0:
            return at + len(mark)
    at = 2 * PIECE - 4
    # Bytes of the form 10xxxxxx continue a character of UTF-8.
    while at > PIECE and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def choose_text_column(label: str, row: Mapping[str, Any]) -> str:
    """The column that holds the text: one with a usual name, or the only one with text in it.

    Raises UserError where neither decides.
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


def require_column(label: str, column: str, row: Mapping[str, Any]) -> None:
    """UserError where the file has no such column."""
    if column not in row:
        raise UserError(f"{label} has no column '{column}'{did_you_mean(column, map(str, row))}")
