"""The user's own files: which ones a path names, and whether the preparation can begin with them.

Errors that can be seen at the start are raised at the start: a missing path, an unknown kind of file, a table
without a text column. Errors that show only later (a broken row, an archive that was cut short) are counted
while the work continues.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from braingpt.data.document import Document
from braingpt.data.sources import hub
from braingpt.data.sources.byte_reader import COMPRESSION, File, format_suffix, local_file
from braingpt.data.sources.columns import choose_text_column, require_column
from braingpt.data.sources.document_stream import DocumentStream, StreamEvents, StreamSpec
from braingpt.data.sources.layout import SUFFIXES
from braingpt.data.sources.own_output import kind_of_output
from braingpt.data.sources.read_options import BY_CONTENT, ReadOptions
from braingpt.data.sources.row import Damaged, Row
from braingpt.data.sources.row_reader import RowReader, sample_rows
from braingpt.errors import UserError

# Name under which documents of own files are counted.
SOURCE = "text"
# Files named in a line for the user.
NAMED_FILES = 3


def find_files(paths: Iterable[Path], options: ReadOptions = BY_CONTENT) -> list[Path]:
    """The readable files named by `paths` or below folders among them, sorted within each folder; every file
    once. Folders that are links are followed; folders below them that braingpt wrote are left out.

    Raises UserError for a path that is not there, a named file of another kind unless the options say its
    format, a folder that cannot be read or that braingpt wrote, and when nothing readable is found.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            if kind := kind_of_output(path):
                raise UserError(f"{path} is {kind} that braingpt wrote; name the folder of your texts")
            files += sorted(
                file for file in _files_below(path) if format_suffix(file.name) in SUFFIXES and file.exists()
            )
        elif not path.exists():
            raise UserError(f"there is no file or folder {path}")
        elif format_suffix(path.name) not in SUFFIXES and not options.format:
            packed = ", ".join(COMPRESSION)
            raise UserError(
                f"{path} is not a kind of file braingpt reads; it reads {', '.join(SUFFIXES)}, "
                f"all but parquet also as {packed} (--format says what another file is)"
            )
        else:
            files.append(path)
    if not files:
        raise UserError(f"there are no {', '.join(SUFFIXES)} files in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(path.resolve() for path in files))


def describe_unread(paths: Iterable[Path]) -> str | None:
    """A line for the user on what is not read below the folders among `paths`: files, counted by kind, and
    folders that braingpt wrote. None where all is read.
    """
    kinds: Counter[str] = Counter()
    outputs: list[Path] = []
    for path in filter(Path.is_dir, paths):
        for file in _files_below(path, outputs):
            if not file.exists():
                kinds["links to nothing"] += 1
            elif format_suffix(file.name) not in SUFFIXES:
                kinds[file.suffix.lower() or "without a suffix"] += 1
    counts = ", ".join(f"{count:,} {name}" for name, count in kinds.most_common(5))
    others = " and others" if len(kinds) > 5 else ""
    lines = [f"files that hold no text braingpt reads are left out: {counts}{others}"] if kinds else []
    if outputs:
        named, more = outputs[:NAMED_FILES], len(outputs) - NAMED_FILES
        others = f" and {more:,} others" if more > 0 else ""
        lines.append(f"folders that braingpt wrote are left out: {', '.join(map(str, named))}{others}")
    return "; ".join(lines) or None


def _files_below(folder: Path, outputs: list[Path] | None = None) -> Iterator[Path]:
    """Files below a folder that are not hidden, those behind linked folders too; each folder once, so that a
    link to an outer folder is no circle. Folders that braingpt wrote are put on the list `outputs` instead.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}")

    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        facts = os.stat(root)
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        if Path(root) != folder and kind_of_output(Path(root)):
            folders.clear()
            if outputs is not None:
                outputs.append(Path(root))
            continue
        # Folders before links to them.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(root, name)), name),
        )
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and (path.is_file() or not path.exists()):
                yield path


def stamp(files: Iterable[Path]) -> str:
    """A hash over the files' paths, sizes and modification times: changes when the inputs of a preparation
    do.
    """
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def check_files(
    paths: Iterable[Path],
    column: str | None,
    options: ReadOptions = BY_CONTENT,
    note: Callable[[str], None] = lambda line: None,
) -> list[File]:
    """The files, after a look at the beginning of each; `note` is called with a line for each way of reading
    that their suffixes do not say.

    Raises UserError for one that is not what its name says, or lacks the column.
    """
    files = []
    decisions: dict[str, list[str]] = {}
    for path in paths:
        file = local_file(path)
        files.append(file)
        # A pipe can be read once only.
        if not path.is_file():
            continue
        decision = _check_file(path, file, column, options)
        if decision:
            decisions.setdefault(decision, []).append(file.name)
    for decision, names in decisions.items():
        others = f" and {len(names) - NAMED_FILES:,} others" if len(names) > NAMED_FILES else ""
        verb = "is" if len(names) == 1 else "are"
        note(f"{', '.join(names[:NAMED_FILES])}{others} {verb} read as {decision}")
    return files


def _check_file(path: Path, file: File, column: str | None, options: ReadOptions) -> str | None:
    """How a file is read, where its suffix does not say so."""
    reader = RowReader(file, options=options)
    with closing(reader.rows()) as found:
        rows, error = sample_rows(found, 0)
    values = [row.values for row in rows if row.values is not None]
    # Of a file that is damaged further on, what comes before is read.
    if isinstance(error, Damaged) and not values:
        raise UserError(f"{path} cannot be read: {error}")
    if isinstance(error, OSError):
        raise UserError(f"{path} cannot be read: {error.strerror or error}")
    if error and not isinstance(error, Damaged):
        raise error
    layout = reader.layout
    decision = reader.decision()
    if layout is None or layout.kind == "text" or not rows:
        return decision
    if not values:
        raise UserError(_all_broken(path, reader, rows))
    if column is None:
        chosen = choose_text_column(str(path), values)
        if decision or chosen.lower() != "text":
            textual = f"column '{chosen}' is the text"
            return f"{decision}; {textual}" if decision else f"{layout.in_words()}; {textual}"
    elif layout.kind in ("table", "parquet"):
        # The rows of a json file may differ in their columns.
        require_column(str(path), column, values[0])
    return decision


def _all_broken(path: Path, reader: RowReader, rows: list[Row]) -> str:
    """The message for a file of which no row of the sample is whole."""
    shape = reader.layout.in_words() if reader.layout else "text"
    return (
        f"{path} cannot be read as {shape}: none of its first {len(rows)} rows is whole (such as "
        f"'{rows[0].broken[1][:100]}'); --format, --delimiter or --encoding says how to read it"
    )


def own_files(
    paths: list[Path],
    column: str | None,
    events: StreamEvents,
    part: tuple[int, int] | None = None,
    options: ReadOptions = BY_CONTENT,
) -> DocumentStream:
    """The stream of the user's own files.

    Args:
        paths: Files, as from `find_files`.
        column: The text column of tables; None finds one in each file.
        events: Called while the stream is read, and with a note on how files are read.
        part: (2, 8) takes the second, tenth, ... of the files.
        options: What the user says about how files are to be read.

    Raises:
        UserError: A file is not what its name says, or lacks the column.
    """
    listing = hub.Listing(check_files(paths, column, options, events.note), None)
    spec = StreamSpec(
        source=SOURCE,
        language=None,
        label="",
        list_files=lambda commit: listing,
        columns=(column,) if column else None,
        part=part,
        options=options,
    )
    return DocumentStream(spec, events)


def read_documents(
    path: Path,
    column: str | None,
    broken: Callable[[str, str], None],
    options: ReadOptions = BY_CONTENT,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Document]:
    """Documents of one file.

    `broken` is called with the rule and a sample of what cannot become a document, `note` with a line for the
    user. Raises as `own_files`.
    """
    events = StreamEvents(note=note, broken=lambda source, rule, sample: broken(rule, sample))
    return iter(own_files([path], column, events, options=options))
