"""Rows of JSON: one value a line, the values of a list or one after another, the lists within one object, or
one object that is a row, a table by columns or a mapping of rows.

A value is an object, a plain text, or a list. Memory is one line or one element of at most
`byte_reader.MAX_LINE` bytes, whatever the size of the file; an object that is no list of rows is read whole,
up to MAX_OBJECT bytes.
"""

import codecs
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from braingpt.data.sources import byte_reader
from braingpt.data.sources.byte_reader import skip_line
from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, NOT_UTF8, Damaged, Row, encoding_hint

# Bytes of one object that is read whole.
MAX_OBJECT = 256 << 20
SPACES = " \t\r\n"


def rows_of_lines(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    """A row for each line that is not empty; the first begins at byte `at`, and `number` rows come before."""
    while line := reader.readline(byte_reader.MAX_LINE):
        size, whole = len(line), len(line) < byte_reader.MAX_LINE or line.endswith(b"\n")
        if not whole:
            size += skip_line(reader)
        at += size
        number += 1
        if not whole:
            reason = f"line {number} has {size >> 20} MB, more than {byte_reader.MAX_LINE >> 20}"
            yield Row(number, at, None, (LINE_TOO_LONG, reason))
        elif line.strip():
            yield _row_of_line(line, number, at)


def rows_of_values(reader: io.BufferedReader, at: int, number: int, open_list: bool) -> Iterator[Row]:
    """A row for each element of lists, and each value outside of them, read as they come.

    `open_list`: whether byte `at` is within a list. Raises Damaged where an element is broken or too long:
    the elements behind it cannot be found.
    """
    values = _Values(reader, at)
    while True:
        first = values.next_character(",\ufeff" if number == 0 else ",")
        if not first:
            if open_list:
                raise Damaged(f"its list ends without a bracket, after element {number}")
            return
        if first == "]" or (first == "[" and not open_list):
            values.pass_character()
            open_list = first == "["
            continue
        value = values.value(f"element {number + 1} of its list")
        number += 1
        yield _row_of_value(value, number, values.at, f"element {number}")


def rows_within_object(reader: io.BufferedReader, number: int) -> Iterator[Row]:
    """A row for each element of the lists of objects, or of rows, that one object holds; `reader` is at its
    beginning, and `number` rows were read before.
    """
    values, element = _Values(reader, 0), 0
    values.next_character("\ufeff")
    values.pass_character()
    names: list[str] | None = None
    while (first := values.next_character(",")) not in ("", "}"):
        key = values.value("a key of its object")
        if values.next_character(":") != "[":
            values.value(f"'{key}' of its object")
            continue
        values.pass_character()
        if values.next_character("") not in ("{", "["):
            skipped = []
            while (first := values.next_character(",")) not in ("", "]"):
                value = values.value(f"'{key}' of its object")
                skipped += [value] if len(skipped) < 1000 else []
            # pandas writes {"columns": [...], "data": [[...], ...]}.
            if key == "columns" and all(isinstance(name, str) for name in skipped):
                names = skipped
            values.pass_character()
            continue
        while (first := values.next_character(",")) not in ("", "]"):
            place = f"element {element + 1} of its lists"
            value = values.value(place)
            element += 1
            if names and isinstance(value, list) and len(value) == len(names):
                value = dict(zip(names, value, strict=True))
            if element > number:
                yield _row_of_value(value, element, values.at, place)
        if not first:
            raise Damaged(f"its list ends without a bracket, after element {element}")
        values.pass_character()
    if not first:
        raise Damaged(f"its object ends without a brace, after element {element}")


def rows_of_object(reader: io.BufferedReader, kind: str, number: int) -> Iterator[Row]:
    """Rows of one object: itself, or one for each place of its `columns`, or for each value of its `index`.

    `number` rows were read before. Raises Damaged where it is broken or beyond MAX_OBJECT bytes.
    """
    data = reader.read(MAX_OBJECT + 1)
    if len(data) > MAX_OBJECT:
        raise Damaged(f"one JSON object of more than {MAX_OBJECT >> 20} MB; write its rows one a line")
    try:
        value = json.loads(data.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its object is broken: {error}") from error
    values = (
        _rows_of_columns(value)
        if kind == "columns"
        else iter([value] if kind == "object" else value.values())
    )
    for place, row in enumerate(islice(values, number, None), number + 1):
        yield _row_of_value(row, place, place, f"row {place} of its object")


def _rows_of_columns(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of a table by columns: lists, or mappings from the row to the value."""
    if all(isinstance(column, list) for column in columns.values()):
        for place in range(max(map(len, columns.values()))):
            yield {name: column[place] if place < len(column) else None for name, column in columns.items()}
        return
    for key in dict.fromkeys(key for column in columns.values() for key in column):
        yield {name: column.get(key) for name, column in columns.items()}


class _Values:
    """The values of a JSON text, one after another."""

    def __init__(self, reader: io.BufferedReader, at: int) -> None:
        self._reader = reader
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._parse = json.JSONDecoder().raw_decode
        # The text read and not yet dropped, and how much of it is passed; byte `at` is behind that.
        self._text, self._passed, self._ended = "", 0, False
        self.at = at

    def next_character(self, skipped: str) -> str:
        """The next character that is neither white space nor among `skipped`; empty at the end."""
        unwanted = SPACES + skipped
        while True:
            place = self._passed
            while place < len(self._text) and self._text[place] in unwanted:
                place += 1
            self._pass(place)
            if place < len(self._text) or self._ended:
                return self._text[place : place + 1]
            self._read(byte_reader.BUFFER)

    def pass_character(self) -> None:
        """Pass the character that `next_character` gave."""
        self._pass(self._passed + 1)

    def value(self, place: str) -> Any:
        """The next value; Damaged, with its place, where it is broken or too long."""
        while True:
            try:
                value, end = self._parse(self._text, self._passed)
                # A number that ends with the block may continue in the next one.
                if end == len(self._text) and not self._ended:
                    raise ValueError
            except (ValueError, RecursionError) as error:
                if self._ended:
                    raise Damaged(f"{place} is broken: {error}") from error
                size = len(self._text) - self._passed
                if size > byte_reader.MAX_LINE:
                    raise Damaged(f"{place} is longer than {byte_reader.MAX_LINE >> 20} MB") from error
                # Blocks double, which keeps re-reading a long element linear.
                self._read(max(byte_reader.BUFFER, size))
                continue
            self._pass(end)
            return value

    def _read(self, size: int) -> None:
        block = self._reader.read(size)
        self._text = self._text[self._passed :] + self._decode(block, final=not block)
        self._passed, self._ended = 0, not block

    def _pass(self, place: int) -> None:
        passed = self._text[self._passed : place]
        self.at += len(passed) if passed.isascii() else len(passed.encode("utf-8", "surrogateescape"))
        self._passed = place


def _row_of_line(line: bytes, number: int, at: int) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return Row(number, at, None, (NOT_UTF8, f"line {number}{encoding_hint(line)}"))
    except (ValueError, RecursionError):
        excerpt = line[:60].decode("utf-8", "replace").rstrip()
        return Row(number, at, None, (BROKEN_ROW, f"line {number}: {excerpt}"))
    return _row_of_value(value, number, at, f"line {number}")


def _row_of_value(value: Any, number: int, at: int, place: str) -> Row:
    # A list of plain texts is as good as one of objects.
    if isinstance(value, str):
        return Row(number, at, {"text": value})
    if isinstance(value, dict):
        return Row(number, at, value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return Row(number, at, {"text": value})
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        return Row(number, at, {str(place): item for place, item in enumerate(value, 1)})
    return Row(number, at, None, (BROKEN_ROW, f"{place} is not an object"))
