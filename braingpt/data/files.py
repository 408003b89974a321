"""Documents from the user's own files: txt, md, jsonl, csv, tsv (each also as .gz) and parquet, in folders or one by one.

Read with bounded memory. What is broken inside a readable file (a row that is not JSON, bytes that are not UTF-8) is counted and skipped;
a file that is not what its name says stops the preparation, because more than a row is wrong with it.
"""

import csv
import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from braingpt.data.document import Document
from braingpt.errors import UserError, nearest

PIECE = 64 * 1024  # bytes: a longer text file is cut into documents near this size, at an empty line where there is one
TEXT_COLUMNS = ("text", "content", "raw_content", "document", "body", "article", "sentence", "context", "본문", "내용")
PLAIN = (".txt", ".md")
ROWS = (".jsonl", ".json", ".ndjson")
TABLES = (".csv", ".tsv")
SUFFIXES = (*PLAIN, *ROWS, *TABLES, ".parquet")
SOURCE = "text"

Note = Callable[[str], None]  # one line for the user
Broken = Callable[[str, str], None]  # (rule, sample): counts what cannot become a document


def find(paths: Iterable[Path]) -> list[Path]:
    """The readable files named by `paths` or below folders among them, sorted within each folder; every file once.

    Raises UserError for a path that is not there, a named file of another kind, and when nothing readable is found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file() and _kind(p) in SUFFIXES)
            found += sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts))
        elif not path.exists():
            raise UserError(f"no file or folder {path}")
        elif _kind(path) not in SUFFIXES:
            raise UserError(f"{path} is not a kind of file braingpt reads; it reads {', '.join(SUFFIXES)}, all but parquet also as .gz")
        else:
            found.append(path)
    if not found:
        raise UserError(f"no {', '.join(SUFFIXES)} files in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(path.resolve() for path in found))


def stamp(files: Iterable[Path]) -> str:
    """A hash over the files' paths, sizes and modification times: changes when the inputs of a preparation do."""
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read(path: Path, column: str | None, broken: Broken) -> Iterator[Document]:
    """Documents of one file. `column`: where a table keeps its text; None finds it by name. Languages are left to detection.

    Raises UserError for a table without a text column, a file that is not the parquet or gzip it claims to be.
    """
    kind = _kind(path)
    try:
        if kind == ".parquet":
            texts: Iterable[tuple[str, str]] = _parquet(path, column, broken)
        elif kind in TABLES:
            texts = _table(path, column, broken, "\t" if kind == ".tsv" else ",")
        elif kind in ROWS:
            texts = _json_rows(path, column, broken)
        else:
            texts = _plain(path, broken)
        for place, text in texts:
            yield Document(text, None, SOURCE, f"{path.name}:{place}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})") from None


def _kind(path: Path) -> str:
    """The file's suffix in lower case, the one before `.gz` for a compressed file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] != ".parquet" else ""
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _plain(path: Path, broken: Broken) -> Iterator[tuple[str, str]]:
    with _open(path) as file:
        for number, piece in enumerate(_pieces(file)):
            try:
                yield f"piece {number}", piece.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError:
                broken("not UTF-8", f"{path.name} piece {number}: {piece[:60].decode('utf-8', 'replace')}")


def _pieces(file: io.BufferedIOBase) -> Iterator[bytes]:
    """The file in pieces of at most twice PIECE bytes, cut after an empty line, else a line, else a space, else a whole character."""
    rest = b""
    while block := file.read1(PIECE):  # what is there now: a slow pipe stays interruptible
        rest += block
        while len(rest) >= 2 * PIECE:
            at = _cut(rest)
            yield rest[:at]
            rest = rest[at:]
    if rest:
        yield rest


def _cut(data: bytes) -> int:
    for mark in (b"\n\n", b"\n", b" "):
        at = data.find(mark, PIECE, 2 * PIECE)
        if at >= 0:
            return at + len(mark)
    at = 2 * PIECE - 4
    while at > PIECE and data[at] & 0xC0 == 0x80:  # a continuation byte of UTF-8
        at -= 1
    return at


def _json_rows(path: Path, column: str | None, broken: Broken) -> Iterator[tuple[str, str]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                broken("not UTF-8", f"{path.name} line {number}")
                continue
            except (ValueError, RecursionError):
                broken("broken row", f"{path.name} line {number}: {line[:60].decode('utf-8', 'replace')}")
                continue
            if not isinstance(row, dict):
                broken("broken row", f"{path.name} line {number} is not an object")
                continue
            if column is None:  # the first whole row decides for the file
                column = _choose(path, list(row), row)
            if not isinstance(row.get(column), str):
                broken("broken row", f"{path.name} line {number} has no text in '{column}'; it has {', '.join(map(str, row))}")
            else:
                yield f"line {number}", row[column]


def _table(path: Path, column: str | None, broken: Broken, delimiter: str) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(sys.maxsize)
    with _open(path) as file:
        # bytes that are not UTF-8 become surrogates here, so that one bad cell costs its row and not the file
        lines = (line.decode("utf-8", "surrogateescape").replace("\0", "") for line in file)
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            header = [name.strip().lstrip("\ufeff") for name in next(reader, [])]
        except csv.Error as error:
            raise UserError(f"{path} is not a readable table: {error}") from None
        if not header:
            return
        at: int | None = None
        for number, row in enumerate(_survivors(reader, path, broken), 2):
            if at is None:
                at = header.index(_choose(path, header, dict(zip(header, row, strict=False)), column))
            if not row:
                continue
            if at >= len(row):
                broken("broken row", f"{path.name} row {number} has {len(row)} of {len(header)} columns")
            elif any("\ud800" <= character <= "\udfff" for character in row[at]):
                broken("not UTF-8", f"{path.name} row {number}")
            else:
                yield f"row {number}", row[at]


def _survivors(reader: Any, path: Path, broken: Broken) -> Iterator[list[str]]:
    """Rows of a csv reader; one it cannot parse is counted."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken("broken row", f"{path.name} line {reader.line_num}: {error}")


def _parquet(path: Path, column: str | None, broken: Broken) -> Iterator[tuple[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            strings = [f.name for f in file.schema_arrow if _is_string(f.type)]
            if not strings and column is None:
                raise UserError(f"{path} has no text column; its columns are {', '.join(file.schema_arrow.names)}")
            first = next(file.iter_batches(1), None)
            if first is None:
                return
            column = _choose(path, file.schema_arrow.names if column else strings, first.to_pylist()[0], column)
            values = (value for batch in file.iter_batches(256, columns=[column]) for value in batch.column(0))
            for number, value in enumerate(values):
                try:
                    text = value.as_py()
                except UnicodeDecodeError:
                    broken("not UTF-8", f"{path.name} row {number}")
                    continue
                if isinstance(text, str):
                    yield f"row {number}", text
                else:
                    broken("broken row", f"{path.name} row {number} has no text in '{column}'")
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a readable parquet file ({str(error)[:120]})") from None


def _is_string(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _choose(path: Path, columns: list[str], row: dict[str, Any], column: str | None = None) -> str:
    """The column with the text: `column` if given, one with a usual name, or the only one that holds text at all."""
    if column is not None:
        if column not in columns:
            raise UserError(f"{path} has no column '{column}'{nearest(column, columns)}")
        return column
    by_name = {name.lower(): name for name in reversed(columns)}
    for usual in TEXT_COLUMNS:
        if usual in by_name:
            return by_name[usual]
    textual = [name for name in columns if isinstance(row.get(name), str) and any(map(str.isalpha, row[name]))]
    if len(textual) == 1:
        return textual[0]
    raise UserError(f"cannot tell which column of {path} is the text; name it with --column, one of {', '.join(map(str, columns))}")
