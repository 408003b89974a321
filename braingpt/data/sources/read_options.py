"""What the user says about how files are to be read, where their content shall not decide."""

from typing import NamedTuple

from braingpt.data.sources.encodings import named_encoding
from braingpt.errors import UserError

# What --format takes, and the suffix whose files are so.
FORMATS = {
    "text": ".txt",
    "txt": ".txt",
    "md": ".txt",
    "jsonl": ".jsonl",
    "ndjson": ".jsonl",
    "json": ".json",
    "table": ".csv",
    "csv": ".csv",
    "tsv": ".tsv",
    "parquet": ".parquet",
}
DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "bar": "|"}


class ReadOptions(NamedTuple):
    """What the user says about files instead of letting the content decide.

    Attributes:
        format: One of FORMATS.
        encoding: A codec of Python.
        delimiter: The character between the columns of a table.
    """

    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None


# Nothing said: the content decides.
BY_CONTENT = ReadOptions()


def checked_options(format: str | None, encoding: str | None, delimiter: str | None) -> ReadOptions:
    """The options as given; UserError for one that says nothing."""
    if format is not None and format.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"--format {format} is not known; it is text, jsonl, json, csv, tsv or parquet")
    if delimiter is not None:
        delimiter = DELIMITER_NAMES.get(delimiter.lower(), delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
            raise UserError("--delimiter is one character, or tab, comma, semicolon or pipe")
    return ReadOptions(
        format.lower().removeprefix(".") if format else None,
        named_encoding(encoding) if encoding else None,
        delimiter,
    )
