"""How a file is to be read, decided from a sample of its text: plain text, JSON in one of its layouts, or a
table with its delimiter.

The suffix says what is likely, and decides where the content fits several; a plain text is a table or JSON
only where every line of the sample is. What the user says (`ReadOptions`) is not questioned.
"""

import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from braingpt.data.sources.columns import TEXT_COLUMNS
from braingpt.data.sources.read_options import FORMATS, ReadOptions
from braingpt.data.sources.row import Damaged, Row
from braingpt.data.sources.table_rows import NO_DELIMITER, TableForm, is_number, rows_of_table

PLAIN = (".txt", ".md")
JSON = (".jsonl", ".json", ".ndjson")
TABLES = (".csv", ".tsv")
SUFFIXES = (*PLAIN, *JSON, *TABLES, ".parquet")
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
# Rows of a table, and lines of JSON, from which is decided.
ROWS, LINES = 300, 50
# Share of the rows of a table that fit its header from which a file that is not called a table is one.
TABLE_SHARE = 0.98
# Characters of a column's name, at most, where a plain text may be a table.
NAME_LENGTH = 40
# A quoted cell with a quote behind a backslash.
ESCAPED_QUOTE = re.compile(r'\\"')
# Lists under these names are one conversation, and not documents.
CONVERSATIONS = ("turns", "messages", "conversation", "conversations", "dialogue", "dialog", "utterances")
# Beginnings of files that hold no text.
BINARY = {
    b"PK\x03\x04": "a zip archive or an Office document",
    b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xfd7zXZ": "an xz archive",
    b"ARROW1": "an Arrow file",
    b"SQLite format": "a database",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}


@dataclass(frozen=True)
class Layout:
    """How a text is read.

    Attributes:
        kind: "text", "lines", "values", "list", "within", "object", "columns", "index", "table" or "parquet".
        table: The form of a table.
    """

    kind: str
    table: TableForm | None = None

    def in_words(self) -> str:
        """The layout in a line for the user."""
        if self.table:
            delimiter = self.table.delimiter
            name = DELIMITERS.get(delimiter, f"'{delimiter}'")
            shape = (
                "a table of one column"
                if delimiter == NO_DELIMITER
                else f"a table with {name} between columns"
            )
            return shape + (", without a header" if self.table.names else "")
        return {
            "text": "plain text",
            "lines": "JSON, one value a line",
            "values": "JSON values one after another",
            "list": "one JSON list",
            "within": "the lists within one JSON object",
            "object": "one JSON object",
            "columns": "one JSON object of columns",
            "index": "one JSON object of rows",
        }.get(self.kind, self.kind)

    def is_usual(self, suffix: str) -> bool:
        """Whether files with this suffix are mostly so."""
        if self.table:
            named = "\t" if suffix == ".tsv" else ","
            return suffix in TABLES and self.table == TableForm(named)
        kinds = {".txt": "text", ".md": "text", ".jsonl": "lines", ".ndjson": "lines", ".parquet": "parquet"}
        return self.kind in ("lines", "list") if suffix == ".json" else kinds.get(suffix) == self.kind


class Sample(NamedTuple):
    """The beginning of a file's text.

    Attributes:
        data: UTF-8 bytes.
        whole: Whether they are all there is.
    """

    data: bytes
    whole: bool

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace").removeprefix("\ufeff")

    def lines(self, count: int) -> list[str]:
        """The first whole lines that are not empty."""
        lines = self.text.split("\n")
        if not self.whole:
            lines.pop()
        return list(itertools.islice((line for line in lines if line.strip()), count))


def decide_layout(sample: Sample, suffix: str, options: ReadOptions, more: Callable[[], Sample]) -> Layout:
    """How to read a text that begins with the sample.

    `more` gives a larger sample, for JSON whose first value is long. Raises Damaged for what is no text.
    """
    if options.format:
        suffix = FORMATS[options.format]
    elif sample.data.startswith(b"PAR1"):
        return Layout("parquet")
    _check_text(sample.data)
    if options.delimiter and not options.format:
        suffix = suffix if suffix in TABLES else ".csv"
    if suffix in TABLES:
        json_layout = None if options.format or options.delimiter else _layout_of_plain_json(sample)
        return json_layout or Layout("table", _table_form(sample, suffix, options.delimiter)[0])
    if suffix in JSON:
        layout = _layout_of_json(sample, suffix, more if suffix == ".json" or not options.format else None)
        if options.format == "jsonl":
            return Layout("lines")
        if layout is None and not options.format:
            form, share = _table_form(sample, ".csv", None)
            layout = Layout("table", form) if share >= TABLE_SHARE else None
        return layout or Layout("lines")
    if options.format or suffix == ".md":
        return Layout("text")
    return _layout_of_plain_json(sample) or _layout_of_plain_table(sample) or Layout("text")


def _check_text(data: bytes) -> None:
    for magic, what in BINARY.items():
        if data.startswith(magic):
            raise Damaged(f"holds {what}, which is no text")
    if data.count(0) > len(data) / 20:
        raise Damaged("holds binary data, which is no text (--encoding names another encoding)")


def _layout_of_json(sample: Sample, suffix: str, more: Callable[[], Sample] | None) -> Layout | None:
    """The layout of a text that begins as JSON does; None for others."""
    text = sample.text.lstrip()
    if text[:1] not in ("{", "[", '"'):
        return None
    lines = sample.lines(LINES)
    parsed = [_parse(line) for line in lines]
    good = sum(isinstance(value, dict | list | str) for value in parsed)
    if len(lines) > 1 and 2 * good >= len(lines):
        return Layout("lines")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        behind = text[end:]
    except (ValueError, RecursionError):
        value, behind = None, ""
    if text[0] == "[":
        return Layout("list")
    if rest := behind.lstrip():
        on_new_line = "\n" in behind[: len(behind) - len(rest)]
        return Layout("lines" if on_new_line and good else "values")
    if value is not None and sample.whole:
        return Layout("lines") if isinstance(value, str) else Layout(_kind_of_object(value))
    if more and not sample.whole:
        return _layout_of_json(more(), suffix, None)
    if suffix != ".json" or text[0] == '"':
        return Layout("lines")
    return Layout(_kind_of_beginning(text))


def _layout_of_plain_json(sample: Sample) -> Layout | None:
    """The layout of JSON in a file that is not called so: all lines are objects, or all is one value."""
    if sample.text.lstrip()[:1] not in ("{", "["):
        return None
    lines = sample.lines(LINES)
    if lines and all(isinstance(_parse(line), dict) for line in lines):
        return Layout("lines") if len(lines) > 1 else _layout_of_json(sample, ".jsonl", None)
    if sample.whole and isinstance(_parse(sample.text), dict | list):
        return _layout_of_json(sample, ".json", None)
    if re.match(r"\s*\[\s*\{\s*\"", sample.text):
        return Layout("list")
    return None


def _layout_of_plain_table(sample: Sample) -> Layout | None:
    """The layout of a table in a file called a plain text: tabs, in all rows as in the header, whose names
    are short and among them a usual one, or numbers below them.
    """
    header = next(iter(sample.lines(1)), "")
    cells = header.rstrip("\r").split("\t")
    if len(cells) < 2 or any(len(cell) > NAME_LENGTH for cell in cells) or len(sample.lines(4)) < 4:
        return None
    form, share = _table_form(sample, ".tsv", "\t")
    known = any(cell.strip().lower() in TEXT_COLUMNS for cell in cells)
    numbers = any(is_number(cell) for cell in sample.lines(2)[-1].rstrip("\r").split("\t"))
    return Layout("table", form) if share >= TABLE_SHARE and (known or numbers) else None


def _parse(text: str) -> Any:
    try:
        return json.loads(text.strip().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _kind_of_object(value: dict[str, Any]) -> str:
    """Whether one object is a row, a table by columns, a mapping of rows, or holds lists of rows."""
    columns = list(value.values())
    if any(name.lower() in TEXT_COLUMNS and isinstance(column, str) for name, column in value.items()):
        return "object"
    if columns and all(isinstance(column, list) for column in columns):
        lengths = {len(column) for column in columns}
        if len(lengths) == 1 and not any(
            isinstance(item, dict) for column in columns for item in column[:20]
        ):
            return "columns"
    if columns and all(isinstance(column, dict) and column for column in columns):
        inner = [list(column) for column in columns]
        if all(map(str.isdigit, value)) or not (len(inner) > 1 or all(map(str.isdigit, inner[0]))):
            return "index" if len(value) > 1 or not all(map(str.isdigit, inner[0])) else "columns"
        if all(names == inner[0] for names in inner):
            return "columns" if all(map(str.isdigit, inner[0])) or len(inner[0]) > len(value) else "index"
        return "index" if set.intersection(*map(set, inner)) else "object"
    lists = {name: column for name, column in value.items() if isinstance(column, list) and column}
    for name, column in lists.items():
        rows = [item for item in column[:20] if isinstance(item, dict)]
        table = "columns" in lists and isinstance(column[0], list)
        if (rows or table) and name.lower() not in CONVERSATIONS:
            return "within"
    return "object"


def _kind_of_beginning(text: str) -> str:
    """The same of an object that is longer than the sample, from the beginning of its first long value."""
    decoder, at = json.JSONDecoder(), 1
    while match := re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*').match(text, at):
        at = match.end()
        try:
            _, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
    beginning = text[at : at + 200]
    if re.match(r"\[\s*[\[{]", beginning):
        return "within"
    if beginning.startswith("["):
        return "columns"
    if re.match(r'\{\s*"\d+"\s*:', beginning):
        return "columns"
    return "index" if beginning.startswith("{") else "object"


def _table_form(sample: Sample, suffix: str, delimiter: str | None) -> tuple[TableForm, float]:
    """The form of a table, and the share of rows of the sample that fit its header."""
    text, skipped = sample.text, 0
    named = "\t" if suffix == ".tsv" else ","
    if match := re.match(r'"?sep=(.)"?[ \t;,]*\r?\n', text, re.IGNORECASE):
        skipped, delimiter = 1, delimiter or match[1]
    data = sample.data
    if not sample.whole and (end := data.rfind(b"\n")) > 0:
        data = data[: end + 1]
    escape = "\\" if len(ESCAPED_QUOTE.findall(text)) > text.count('""') else None
    best, best_score = TableForm(delimiter or NO_DELIMITER, skipped=skipped, escape=escape), (0.0, False, 0)
    share = 0.0
    for candidate in [delimiter] if delimiter else DELIMITERS:
        form = TableForm(candidate, skipped=skipped, escape=escape)
        rows = _sample_rows(data, form)
        width = max((len(row.values) for row in rows if row.values), default=0)
        if width < 2 and not delimiter:
            continue
        # A row of fewer cells than the header is one that the delimiter does not separate.
        fit = (
            sum(row.values is not None and None not in row.values.values() for row in rows) / len(rows)
            if rows
            else 0
        )
        score = (round(fit, 1), candidate == named, width)
        if score > best_score:
            names = _names_without_header(data, form, rows)
            best, best_score, share = TableForm(candidate, names, skipped, escape), score, fit
    if not delimiter and best.delimiter == NO_DELIMITER and not sample.lines(2)[1:]:
        # A header alone, or nothing.
        best = TableForm(named, skipped=skipped)
    return best, share


def _sample_rows(data: bytes, form: TableForm) -> list[Row]:
    reader: io.BufferedReader = io.BufferedReader(io.BytesIO(data))
    try:
        return list(itertools.islice(rows_of_table(reader, form, 0, 0), ROWS))
    except Damaged:
        return []


def _names_without_header(data: bytes, form: TableForm, rows: list[Row]) -> tuple[str, ...]:
    """Names of the columns (1, 2, ...) of a table whose first row is no header: a number stands above
    numbers, and no usual name in it.
    """
    header = next((list(row.values) for row in rows if row.values), [])
    if len(rows) < 2 or any(name.lower() in TEXT_COLUMNS for name in header):
        return ()
    for name in header:
        below = [row.values.get(name) for row in rows if row.values]
        if is_number(name) and all(is_number(cell) for cell in below) and not all(map(is_number, header)):
            return tuple(str(place) for place in range(1, len(header) + 1))
    return ()
