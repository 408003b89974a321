"""Rows of a parquet file, from any row on; only the columns asked for are decoded.

Memory is one batch of rows of about BATCH_BYTES, whatever the size of the row groups.
"""

from collections.abc import Callable, Iterator
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
    file: File, columns: list[str] | None, start: int, on_row: Callable[[int, int], None]
) -> Iterator[Row]:
    """Rows from row `start` on, counted from 0.

    Args:
        file: The parquet file.
        columns: Columns that are needed, None for all; all are given where the file has none of them.
        start: The first row.
        on_row: Called before each row with the number of rows read so far and of all rows.

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
            before = 0
            for group in range(table.metadata.num_row_groups):
                facts = table.metadata.row_group(group)
                if before + facts.num_rows > start:
                    row_bytes = facts.total_byte_size // max(1, facts.num_rows) + 1
                    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
                    batches = table.iter_batches(batch_rows, row_groups=[group], columns=present)
                    for row in _rows_of_batches(batches, before, start):
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
    return [name for name in table.schema_arrow.names if name in columns] or None


def _rows_of_batches(batches: "Iterator[pyarrow.RecordBatch]", before: int, start: int) -> Iterator[Row]:
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
                broken = ("", "") if values is not None else (NOT_UTF8, f"row {number}")
                yield Row(number, number, values, broken)
        before += size


def _row_values(batch: "pyarrow.RecordBatch", index: int) -> dict[str, Any] | None:
    """Values of one row of a batch; None where a text is not UTF-8."""
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None
