"""The user's own files: which ones a path names, and whether the preparation can begin with them.

Errors that can be seen at the start are raised at the start: a missing path, an unknown kind of file, a table
without a text column. Errors that show only later (a broken row, an archive that was cut short) are counted
while the work continues.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from braingpt.data.document import Document
from braingpt.data.sources import hub
from braingpt.data.sources.byte_reader import COMPRESSION, File, format_suffix, local_file
from braingpt.data.sources.document_stream import DocumentStream, StreamEvents, StreamSpec
from braingpt.data.sources.row import Damaged
from braingpt.data.sources.row_reader import (
    JSON,
    PLAIN,
    SUFFIXES,
    RowReader,
    choose_text_column,
    require_column,
)
from braingpt.errors import UserError

# Name under which documents of own files are counted.
SOURCE = "text"
# Rows of a file looked at before the preparation begins.
CHECKED_ROWS = 50


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The readable files named by `paths` or below folders among them, sorted within each folder; every file
    once.

    Raises UserError for a path that is not there, a named file of another kind, and when nothing readable is
    found.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file() and format_suffix(p.name) in SUFFIXES)
            files += sorted(p for p in inside if not _is_hidden(p, path))
        elif not path.exists():
            raise UserError(f"there is no file or folder {path}")
        elif format_suffix(path.name) not in SUFFIXES:
            packed = ", ".join(COMPRESSION)
            raise UserError(
                f"{path} is not a kind of file that braingpt reads; it reads {', '.join(SUFFIXES)}, "
                f"all but parquet also as {packed}"
            )
        else:
            files.append(path)
    if not files:
        raise UserError(f"there are no {', '.join(SUFFIXES)} files in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(path.resolve() for path in files))


def describe_unread(paths: Iterable[Path]) -> str | None:
    """A line for the user on the files below the folders among `paths` that are not read, counted by kind.
    None where all are read.
    """
    kinds: Counter[str] = Counter()
    for path in filter(Path.is_dir, paths):
        for file in path.rglob("*"):
            if format_suffix(file.name) not in SUFFIXES and file.is_file() and not _is_hidden(file, path):
                kinds[file.suffix.lower() or "without a suffix"] += 1
    if not kinds:
        return None
    counts = ", ".join(f"{count:,} {name}" for name, count in kinds.most_common(5))
    others = " and others" if len(kinds) > 5 else ""
    return f"files that hold no text braingpt reads are left out: {counts}{others}"


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def stamp(files: Iterable[Path]) -> str:
    """A hash over the files' paths, sizes and modification times: changes when the inputs of a preparation
    do.
    """
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def check_files(paths: Iterable[Path], column: str | None) -> list[File]:
    """The files, after a look at the beginning of each.

    Raises UserError for one that is not what its name says or lacks the column.
    """
    files = []
    for path in paths:
        file = local_file(path)
        files.append(file)
        # A pipe can be read once only.
        if not path.is_file():
            continue
        values = None
        suffix = format_suffix(file.name)
        try:
            for row in islice(RowReader(file).rows(), 1 if suffix in PLAIN else CHECKED_ROWS):
                values = row.values
                if values:
                    break
        except Damaged as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        if values is None or suffix in PLAIN:
            continue
        if column is None:
            choose_text_column(str(path), values)
        elif suffix not in JSON:
            # The rows of a json file may differ in their columns.
            require_column(str(path), column, values)
    return files


def own_files(
    paths: list[Path], column: str | None, events: StreamEvents, part: tuple[int, int] | None = None
) -> DocumentStream:
    """The stream of the user's own files.

    Args:
        paths: Files, as from `find_files`.
        column: The text column of tables; None finds one in each file.
        events: Called while the stream is read.
        part: (2, 8) takes the second, tenth, ... of the files.

    Raises:
        UserError: A file is not what its name says, or lacks the column.
    """
    listing = hub.Listing(check_files(paths, column), None)
    spec = StreamSpec(
        source=SOURCE,
        language=None,
        label="",
        list_files=lambda commit: listing,
        columns=(column,) if column else None,
        part=part,
    )
    return DocumentStream(spec, events)


def read_documents(path: Path, column: str | None, broken: Callable[[str, str], None]) -> Iterator[Document]:
    """Documents of one file.

    `broken` is called with the rule and a sample of what cannot become a document. Raises as `own_files`.
    """
    events = StreamEvents(note=lambda line: None, broken=lambda source, rule, sample: broken(rule, sample))
    return iter(own_files([path], column, events))
