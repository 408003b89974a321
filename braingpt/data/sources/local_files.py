"""The user's own files: which ones a path names, and whether the preparation can begin with them.

What can be seen at the start is an error at the start: a path that is not there, a kind of file nobody reads,
a table without a text column. What shows only later (a broken row, an archive that was cut short) is counted
while the work goes on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from braingpt.data.document import Document
from braingpt.data.sources.byte_reader import COMPRESSION, File, kind, local
from braingpt.data.sources.row_reader import JSON, PLAIN, SUFFIXES, Damaged, Reader, choose, require
from braingpt.errors import UserError

SOURCE = "text"
# rows of a file looked at before the preparation begins
LOOK = 50


def find(paths: Iterable[Path]) -> list[Path]:
    """The readable files named by `paths` or below folders among them, sorted within each folder; every file
    once.

    Raises UserError for a path that is not there, a named file of another kind, and when nothing readable is
    found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file() and kind(p.name) in SUFFIXES)
            found += sorted(
                p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)
            )
        elif not path.exists():
            raise UserError(f"no file or folder {path}")
        elif kind(path.name) not in SUFFIXES:
            packed = ", ".join(COMPRESSION)
            raise UserError(
                f"{path} is not a kind of file braingpt reads; it reads {', '.join(SUFFIXES)}, all but parquet also as {packed}"
            )
        else:
            found.append(path)
    if not found:
        raise UserError(f"no {', '.join(SUFFIXES)} files in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(path.resolve() for path in found))


def left_out(paths: Iterable[Path]) -> str | None:
    """Which files below the folders among `paths` nobody reads, counted by kind, in a line for the user: what
    is missing should not surprise.
    """
    kinds: Counter[str] = Counter()
    for path in filter(Path.is_dir, paths):
        for file in path.rglob("*"):
            if (
                kind(file.name) not in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ):
                kinds[file.suffix.lower() or "without a suffix"] += 1
    if not kinds:
        return None
    told = ", ".join(f"{count:,} {name}" for name, count in kinds.most_common(5)) + (
        " and others" if len(kinds) > 5 else ""
    )
    return f"files of kinds that hold no text braingpt reads are left out: {told}"


def stamp(files: Iterable[Path]) -> str:
    """A hash over the files' paths, sizes and modification times: changes when the inputs of a preparation
    do.
    """
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def check(paths: Iterable[Path], column: str | None) -> list[File]:
    """The files, after a look at the beginning of each.

    Raises UserError for one that is not what its name says or lacks the column.
    """
    files = []
    for path in paths:
        file = local(path)
        files.append(file)
        # a pipe can be read once only
        if not path.is_file():
            continue
        row = None
        try:
            suffix = kind(file.name)
            for looked in islice(Reader(file).rows(), 1 if suffix in PLAIN else LOOK):
                row = looked.values
                if row:
                    break
        except Damaged as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        if row is None or suffix in PLAIN:
            continue
        if column is None:
            choose(str(path), row)
        elif suffix not in JSON:
            # the rows of a json file may differ
            require(str(path), column, row)
    return files


def read(path: Path, column: str | None, broken: Callable[[str, str], None]) -> Iterator[Document]:
    """Documents of one file.

    `broken`: told the rule and a sample of what cannot become a document. Raises as `check`.
    """
    # streams are made of files
    from braingpt.data.sources.open_streams import own_files

    return iter(
        own_files([path], column, note=lambda line: None, broken=lambda _, rule, sample: broken(rule, sample))
    )
