"""Columns of a row, also those within others, and which of them is the text.

A column within a column is named by its path, with dots: of `{"data": [{"body": "..."}]}` it is `data.body`,
which stands for several texts where the list has several elements.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from braingpt.data.sources import byte_reader
from braingpt.data.sources.row import BROKEN_ROW, LINE_TOO_LONG, NOT_UTF8
from braingpt.errors import UserError, did_you_mean

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
# A column with a usual name counts if it has text in this share of the rows in which the fullest such one
# has.
FILLED_SHARE = 0.5
# Elements of a list that are looked at for columns.
LOOKED_AT = 20
# Share of single characters from which a list of texts is one text cut into characters.
CHARACTERS_SHARE = 0.9
# Columns named in a message.
NAMED = 12


class _Found(NamedTuple):
    depth: int
    # Rows of the sample in which the column has text.
    rows: int


def choose_text_column(label: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The column that holds the text, from a sample of rows: one with a usual name and text in it, or the
    only one with text in it. Columns within others count where no outer one does.

    Raises UserError where neither decides.
    """
    found = _columns_with_text(rows)
    usual = {path: TEXT_COLUMNS.index(name) for path in found if (name := _last(path)) in TEXT_COLUMNS}
    if usual:
        most = max(found[path].rows for path in usual)
        filled = [path for path in usual if found[path].rows >= FILLED_SHARE * most]
        return min(filled, key=lambda path: (found[path].depth, usual[path]))
    if found:
        outer = min(facts.depth for facts in found.values())
        candidates = [path for path, facts in found.items() if facts.depth == outer]
        if len(candidates) == 1:
            return candidates[0]
        shown = ", ".join(candidates[:NAMED])
        raise UserError(
            f"cannot tell which column of {label} is the text; name it with --column, one of {shown}"
        )
    columns = dict.fromkeys(str(name) for row in rows for name in row)
    # A column that is empty so far may be filled later.
    for name in TEXT_COLUMNS:
        for column in columns:
            if column.lower() == name:
                return column
    names = f"its columns are {', '.join(list(columns)[:NAMED])}" if columns else "it has no columns"
    raise UserError(f"{label} has no text column; {names}")


def require_column(label: str, column: str, row: Mapping[str, Any]) -> None:
    """UserError where the file has no such column."""
    if column not in row and not values_at(row, column):
        raise UserError(f"{label} has no column '{column}'{did_you_mean(column, map(str, row))}")


def values_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """The values of a column: one, or for a column within lists one for each element that has it."""
    if path in row:
        return [row[path]]
    at = -1
    while (at := path.find(".", at + 1)) >= 0:
        if path[:at] in row:
            inner = row[path[:at]]
            elements = inner if isinstance(inner, list) else [inner]
            return [
                value
                for element in elements
                if isinstance(element, Mapping)
                for value in values_at(element, path[at + 1 :])
            ]
    return []


def texts_of_row(values: Mapping[str, Any], columns: tuple[str, ...]) -> list[tuple[str, str, Any]]:
    """Each text of a row with its column and, where a column has several, a mark of its place."""
    if len(columns) == 1 and columns[0] in values:
        return [(columns[0], "", values[columns[0]])]
    return [
        (column, f".{place}" if len(found) > 1 else "", value)
        for column in columns
        for found in [values_at(values, column)]
        for place, value in enumerate(found, 1)
    ]


def text_of_value(value: Any) -> tuple[str, str | None]:
    """A column's text, or the rule that counts it: a string, a list of sentences, words or characters (KLUE
    ner), or turns of a dialogue (KLUE wos).
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = _joined(value)
    elif isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        turns = [turn.get("text", turn.get("content")) for turn in value]
        value = "\n".join(turns) if all(isinstance(turn, str) for turn in turns) else turns
    elif isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        return "", "empty" if value is None else BROKEN_ROW
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return _broken_text(value), NOT_UTF8
    # A parquet file has no lines whose length a reader could bound.
    if size > byte_reader.MAX_LINE:
        return "", LINE_TOO_LONG
    return value, None if value.strip() else "empty"


def _broken_text(value: str) -> str:
    """A text with bytes that were not UTF-8, or with half of a surrogate pair in a JSON escape, as surrogates
    of bytes.
    """
    try:
        value.encode("utf-8", "surrogateescape")
        return value
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def _joined(items: list[str]) -> str:
    """Characters without anything between them, words with a space, sentences with a line end."""
    if sum(len(item) <= 1 for item in items) >= CHARACTERS_SHARE * len(items):
        return "".join(items)
    return ("\n" if any(any(map(str.isspace, item.strip())) for item in items) else " ").join(items)


def _columns_with_text(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for row in rows:
        for path, depth in dict(_texts_within(row)).items():
            found[path] = _Found(depth, found[path].rows + 1 if path in found else 1)
    return found


def _texts_within(row: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, int]]:
    """Paths of the columns of a row that have text, with their depths."""
    for name, value in row.items():
        path = f"{prefix}{name}"
        if _is_text(value):
            yield path, depth
        elif isinstance(value, Mapping):
            yield from _texts_within(value, f"{path}.", depth + 1)
        elif isinstance(value, list):
            for element in value[:LOOKED_AT]:
                if isinstance(element, Mapping):
                    yield from _texts_within(element, f"{path}.", depth + 1)


def _is_text(value: Any) -> bool:
    """Whether a value can be made a text with letters."""
    if value is None or isinstance(value, int | float):
        return False
    text, rule = text_of_value(value)
    return rule is None and any(map(str.isalpha, text))


def _last(path: str) -> str:
    return path.rpartition(".")[2].lower()
