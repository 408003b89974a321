"""Rows of one file, with the place of each: plain text, JSON, tables and parquet, local or on the hub.

`RowReader.rows` yields whole rows and broken ones alike, each with the place after it, so that reading can
stop anywhere, continue there, and count every loss once. How the file is read is decided from its beginning
(`layout.py`, `encodings.py`). Memory is one block and one row of at most `byte_reader.MAX_LINE` bytes. What
is broken inside a readable file is a `Row` with a reason; a file that cannot be read to its end (cut short,
not the format its name says) raises Damaged.

    for row in RowReader(local_file(Path("texts.jsonl"))).rows():
        print(row.number, row.values or row.broken)
"""

import io
from collections.abc import Generator, Iterator

from braingpt.data.sources.byte_reader import ByteReader, File, format_suffix
from braingpt.data.sources.encodings import shown_encoding
from braingpt.data.sources.json_rows import rows_of_lines, rows_of_object, rows_of_values, rows_within_object
from braingpt.data.sources.layout import Layout, Sample, decide_layout
from braingpt.data.sources.parquet_rows import rows_of_parquet
from braingpt.data.sources.read_options import BY_CONTENT, FORMATS, ReadOptions
from braingpt.data.sources.row import NOT_UTF8, Damaged, Row, encoding_hint
from braingpt.data.sources.table_rows import rows_of_table

# Bytes of a document that a longer plain text is cut into, at an empty line where there is one.
PIECE = 64 * 1024
# Rows from which the text column of a file is chosen, and the bytes they may be at most.
SAMPLE_ROWS, SAMPLE_BYTES = 200, 4 << 20
# Bytes of a sample for JSON whose first value is long.
LARGE_SAMPLE = 4 << 20


class RowReader:
    """Reads one file from a place on.

    Attributes:
        layout: How the file is read; None before the first row.
        encoding: The encoding of a text.
    """

    def __init__(
        self, file: File, columns: list[str] | None = None, options: ReadOptions | None = None
    ) -> None:
        """`columns`: what is needed of a parquet file, None for all; other formats give every column."""
        self.file, self.columns, self.options = file, columns, options or BY_CONTENT
        self.layout: Layout | None = None
        self.encoding = "utf-8"
        self._bytes: ByteReader | None = None
        # Rows of a parquet file read so far, and all of them.
        self._parquet_rows = (0, 0)

    def fraction_read(self) -> float | None:
        """Share of the file read so far, 0 to 1; None where it cannot be known."""
        done, total = self._parquet_rows
        if total:
            return done / total
        return self._bytes.fraction_read() if self._bytes else None

    def decision(self) -> str | None:
        """How the file is read, in words, where that is not what its suffix says; None before the first row
        too.
        """
        if self.layout is None:
            return None
        encoding = "" if self.encoding in ("utf-8", "utf-8-sig") else f", in {shown_encoding(self.encoding)}"
        if not encoding and self.layout.is_usual(format_suffix(self.file.name)):
            return None
        return f"{self.layout.in_words()}{encoding}"

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
        if (FORMATS[self.options.format] if self.options.format else suffix) == ".parquet":
            yield from self._rows_of_parquet(start)
            return
        try:
            if start and self.layout is None:
                with self._open(0):
                    pass
            with self._open(start) as reader:
                layout = self.layout
                if layout and layout.kind != "parquet":
                    yield from _rows(reader, layout, start, number)
        except UnicodeError as error:
            raise Damaged(f"not in the encoding it seems to be in: {error}") from error
        except OSError as error:
            # pyarrow's decompressors report broken contents as an OSError without a number.
            if type(error) is OSError and error.errno is None:
                raise Damaged(str(error)) from error
            raise
        if self.layout and self.layout.kind == "parquet":
            yield from self._rows_of_parquet(start)

    def _open(self, start: int) -> ByteReader:
        """The file's bytes from `start` on, or from the beginning where its layout needs that, which is
        decided.
        """
        beginning = (
            start and self.layout and self.layout.kind in ("table", "within", "object", "columns", "index")
        )
        opened = ByteReader(self.file, 0 if beginning else start, self.options.encoding)
        self._bytes, self.encoding = opened, opened.encoding
        if self.layout is None:
            try:
                self.layout = decide_layout(
                    Sample(opened.sample, opened.whole),
                    format_suffix(self.file.name),
                    self.options,
                    lambda: Sample(opened.larger_sample(LARGE_SAMPLE), opened.whole),
                )
            except BaseException:
                opened.close()
                raise
        return opened

    def _rows_of_parquet(self, start: int) -> Iterator[Row]:
        self.layout = Layout("parquet")
        yield from rows_of_parquet(
            self.file, self.columns, start, self._count_parquet_rows, self.options.encoding or "utf-8"
        )

    def _count_parquet_rows(self, done: int, total: int) -> None:
        self._parquet_rows = done, total


def _rows(reader: io.BufferedReader, layout: Layout, start: int, number: int) -> Iterator[Row]:
    if layout.kind == "text":
        return _rows_of_text(reader, start, number)
    if layout.table:
        return rows_of_table(reader, layout.table, start, number)
    if layout.kind == "lines":
        return rows_of_lines(reader, start, number)
    if layout.kind in ("list", "values"):
        return rows_of_values(reader, start, number, open_list=bool(start) and layout.kind == "list")
    if layout.kind == "within":
        return rows_within_object(reader, number)
    return rows_of_object(reader, layout.kind, number)


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


def sample_rows(rows: Iterator[Row], start: int) -> tuple[list[Row], Exception | None]:
    """The next rows, from byte `start` of a text or row `start` of a parquet file on, and the error that
    ended them, so that the rows before it are not lost.
    """
    taken: list[Row] = []
    try:
        for row in rows:
            taken.append(row)
            if len(taken) == SAMPLE_ROWS or row.next - start > SAMPLE_BYTES:
                break
    except Exception as error:
        # The hub's libraries have no common type of error.
        return taken, error
    return taken, None
