"""Rows of JSON: one value a line (jsonl, ndjson), or the elements of one array.

A value is an object, or a plain text. Memory is one line or one element of at most `byte_reader.MAX_LINE`
bytes, whatever the size of the file.
"""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from braingpt.data.sources import byte_reader
from braingpt.data.sources.byte_reader import ByteReader, File, skip_line
from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, NOT_UTF8, Damaged, Row, encoding_hint


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


def rows_of_array(reader: io.BufferedReader, at: int, number: int) -> Iterator[Row]:
    """A row for each element of one array, read as they come, whatever the array's size.

    Raises Damaged where an element is broken or too long: the elements after it cannot be found.
    """
    decoder = json.JSONDecoder()
    text, ended = "", False
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    while True:
        body = text.lstrip(" \t\r\n,[\ufeff" if number == 0 else " \t\r\n,")
        at += _utf8_size(text[: len(text) - len(body)])
        text = body
        if body.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(body)
            # A number that ends with the block may continue in the next one.
            if end == len(body) and not ended:
                raise ValueError
        except (ValueError, RecursionError) as error:
            if ended or len(text) > byte_reader.MAX_LINE:
                place = f"element {number + 1} of its list"
                if not ended:
                    raise Damaged(f"{place} is longer than {byte_reader.MAX_LINE >> 20} MB") from error
                raise Damaged(f"{place} is broken: {error}") from error
            # Blocks double, which keeps re-reading a long element linear.
            block = reader.read(max(byte_reader.BUFFER, len(text)))
            text, ended = text + decode(block, final=not block), not block
            continue
        at += _utf8_size(body[:end])
        text = body[end:]
        number += 1
        yield _row_of_value(value, number, at, f"element {number}")


def starts_with_bracket(file: File, start: int, reader: io.BufferedReader) -> bool:
    """Whether the file is one array; `reader` is at byte `start` of it."""
    if not start:
        return reader.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
    with ByteReader(file) as beginning:
        return starts_with_bracket(file, 0, beginning)


def _row_of_line(line: bytes, number: int, at: int) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return Row(number, at, None, (NOT_UTF8, f"line {number}{encoding_hint(line)}"))
    except (ValueError, RecursionError):
        excerpt = line[:60].decode("utf-8", "replace")
        return Row(number, at, None, (BROKEN_ROW, f"line {number}: {excerpt}"))
    return _row_of_value(value, number, at, f"line {number}")


def _row_of_value(value: Any, number: int, at: int, place: str) -> Row:
    # A list of plain texts is as good as one of objects.
    if isinstance(value, str):
        return Row(number, at, {"text": value})
    if isinstance(value, dict):
        return Row(number, at, value)
    return Row(number, at, None, (BROKEN_ROW, f"{place} is not an object"))


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
