"""Rows of a parquet file, from any row on; only the columns asked for are decoded.

Bytes are read as text, as Spark and older pandas write it without the mark of a text. Columns of JSON (the
extension `arrow.json`, which `datasets` writes where a column has a number among its texts) are decoded.
Memory is one batch of rows of about BATCH_BYTES, whatever the size of the row groups.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from braingpt.data.sources.byte_reader import File, open_raw
from braingpt.data.sources.row import NOT_UTF8, Damaged, Row

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# Bytes of a row group decoded at once, and the rows they may be at most.
BATCH_BYTES = 8 << 20
BATCH_ROWS = 1024


def rows_of_parquet(
    file: File,
    columns: list[str] | None,
    start: int,
    on_row: Callable[[int, int], None],
    encoding: str = "utf-8",
) -> Iterator[Row]:
    """Rows from row `start` on, counted from 0.

    Args:
        file: The parquet file.
        columns: Columns that are needed, None for all; all are given where the file has none of them.
        start: The first row.
        on_row: Called before each row with the number of rows read so far and of all rows.
        encoding: The encoding of columns of bytes.

    Raises:
        Damaged: The file is cut short or not a parquet file.
        OSError: The file cannot be opened.
    """
    import pyarrow
    import pyarrow.parquet

    raw = open_raw(file)
    try:
        with raw, pyarrow.parquet.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20) as table:
            present = _present(table, columns)
            decoders = _decoders(table, encoding)
            before = 0
            for group in range(table.metadata.num_row_groups):
                facts = table.metadata.row_group(group)
                if before + facts.num_rows > start:
                    row_bytes = facts.total_byte_size // max(1, facts.num_rows) + 1
                    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
                    batches = table.iter_batches(batch_rows, row_groups=[group], columns=present)
                    for row in _rows_of_batches(batches, before, start, decoders):
                        on_row(row.next, table.metadata.num_rows)
                        yield row
                before += facts.num_rows
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise Damaged(f"not a readable parquet file ({str(error)[:160]})") from error
    except OSError as error:
        # pyarrow reports broken contents as an OSError without a number.
        if type(error) is OSError and error.errno is None:
            raise Damaged(f"not a readable parquet file ({str(error)[:160]})") from error
        raise


def _present(table: "pyarrow.parquet.ParquetFile", columns: list[str] | None) -> list[str] | None:
    """Of the columns needed those the file has; None, for all, when it has none of them, so that a message
    can name those there are.
    """
    if not columns:
        return None
    present = set(table.schema_arrow.names)
    # A column within another one is named by its path.
    wanted = {column if column in present else _outer_column(column, present) for column in columns}
    return [name for name in table.schema_arrow.names if name in wanted] or None


def _outer_column(path: str, present: set[str]) -> str:
    parts = path.split(".")
    outer = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in outer if name in present), path)


def _decoders(table: "pyarrow.parquet.ParquetFile", encoding: str) -> dict[str, Callable[[Any], Any]]:
    """For each column that needs it, what makes text or values of the values pyarrow gives."""
    found = ((field.name, _decoder(field, encoding)) for field in table.schema_arrow)
    return {name: decode for name, decode in found if decode}


def _decoder(field: "pyarrow.Field", encoding: str) -> Callable[[Any], Any] | None:
    import pyarrow

    kind = field.type
    if getattr(kind, "extension_name", "") == "arrow.json" or (field.metadata or {}).get(
        b"ARROW:extension:name"
    ) == (b"arrow.json"):
        return _decode_json
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _decoder(pyarrow.field(field.name, kind.value_type), encoding)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return lambda value: value if value is None else value.decode(encoding, "surrogateescape")
    if types.is_struct(kind):
        inner = {part.name: decode for part in kind if (decode := _decoder(part, encoding))}
        return (lambda value: _decode_struct(value, inner)) if inner else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        decode = _decoder(kind.value_field, encoding)
        return partial(_decode_list, decode) if decode else None
    return None


def _decode_json(value: Any) -> Any:
    """The value of JSON source; the source itself where it is none."""
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except (ValueError, RecursionError):
        return value


def _decode_list(decode: Callable[[Any], Any], value: list[Any] | None) -> list[Any] | None:
    return None if value is None else [decode(item) for item in value]


def _decode_struct(value: dict[str, Any] | None, decoders: dict[str, Callable[[Any], Any]]) -> Any:
    if value is None:
        return None
    return {name: decoders[name](inner) if name in decoders else inner for name, inner in value.items()}


def _rows_of_batches(
    batches: "Iterator[pyarrow.RecordBatch]",
    before: int,
    start: int,
    decoders: dict[str, Callable[[Any], Any]],
) -> Iterator[Row]:
    """Rows from row `start` on; `before` rows come before the first batch."""
    for batch in batches:
        size, first = batch.num_rows, max(0, start - before)
        if first < size:
            batch = batch.slice(first)
            rows: list[dict[str, Any] | None]
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:
                rows = [_row_values(batch, index) for index in range(batch.num_rows)]
            for number, values in enumerate(rows, before + first + 1):
                if decoders and values is not None:
                    values = _decode_struct(values, decoders)
                broken = ("", "") if values is not None else (NOT_UTF8, f"row {number}")
                yield Row(number, number, values, broken)
        before += size


def _row_values(batch: "pyarrow.RecordBatch", index: int) -> dict[str, Any] | None:
    """Values of one row of a batch; None where a text is not UTF-8."""
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None
