"""Documents from the Hugging Face hub, or from a folder of local copies in the hub's layout: the same code reads both.

Everything is streamed through `datasets.load_dataset(ID or DIR/ID, config, split)`; no loading script is ever run. What is not there (a
configuration nobody copied, a split the hub lacks) is noted and skipped; a hub that cannot be reached is one clear error, quickly.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from braingpt.data.document import Document
from braingpt.data.sources import DATASETS, Dataset, Part, preparation
from braingpt.errors import Failure, UserError

Note = Callable[[str], None]  # one line for the user
Broken = Callable[[str, str, str], None]  # (source, rule, sample): counts a row that cannot become a document


def open_hub(name: str, languages: list[str], source: Path | None, note: Note, broken: Broken) -> Iterator[tuple[str, Iterator[Document]]]:
    """`(dataset name, documents)` for every stream of the preparation that is there, one language of one dataset at a time.

    `source`: folder with local copies, or None for the hub. A configuration or split that is absent is noted and skipped.
    Raises UserError when nothing at all is there, Failure when the hub cannot be reached or a file cannot be read.
    """
    quiet_hub()
    if source is None:
        reach_hub()
    found = False
    for name_of in preparation(name).datasets:
        dataset = DATASETS[name_of]
        if source and not (source / dataset.id).is_dir():
            note(f"{dataset.id} is not under {source}: skipped")
            continue
        absent: list[str] = []
        for language in languages:
            for part in dataset.parts.get(language, ()):
                for split in part.splits:
                    rows = _open(dataset, part, split, source, absent)
                    if rows is not None:
                        found = True
                        yield name_of, _documents(rows, name_of, part, language, split, broken)
        if absent:
            note(f"{dataset.id}: not there and skipped: {', '.join(dict.fromkeys(absent))}")
    if not found:
        where = f"under {source}" if source else "on the hub"
        wanted = ", ".join(DATASETS[dataset].id for dataset in preparation(name).datasets)
        raise UserError(f"nothing of '{name}' in {', '.join(languages)} {where}; looked for {wanted}")


def _open(dataset: Dataset, part: Part, split: str, source: Path | None, absent: list[str]) -> Iterator[dict[str, Any]] | None:
    """Rows of one configuration and split, or None where there are none, added to `absent`."""
    import datasets

    label = " ".join(filter(None, (part.config, split)))
    base = str(source / dataset.id) if source else dataset.id
    try:
        if dataset.files:
            home = os.path.abspath(base) if source else f"hf://datasets/{dataset.id}"
            stream = datasets.load_dataset("json", data_files=f"{home}/{dataset.files.format(part.config)}", split="train", streaming=True)
        else:
            revision = None if source else dataset.revision
            stream = datasets.load_dataset(base, part.config, split=split, revision=revision, streaming=True)
    except (ValueError, FileNotFoundError, StopIteration, datasets.exceptions.DatasetNotFoundError) as error:
        # `datasets` has no narrower types: ValueError is an unknown configuration or split, StopIteration a pattern without files
        reason = " ".join(str(error).split())[:160]
        if reason.startswith("BuilderConfig"):
            absent.append(part.config or "default")
        elif reason.startswith("Bad split") or dataset.files or not reason:
            absent.append(label)
        else:  # a repository that is gone, or a folder that is no dataset: the reason matters
            absent.append(f"{label} ({reason})")
        return None
    except Exception as error:
        raise _unreadable(f"{dataset.id} {label}", error) from error
    rows = _guarded(iter(stream), f"{dataset.id} {label}")
    first = next(rows, None)
    if first is None:
        absent.append(label)
        return None
    return chain([first], rows)


def _guarded(rows: Iterator[dict[str, Any]], label: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:
        raise _unreadable(label, error) from error


def _unreadable(label: str, error: Exception) -> Exception:
    """The exception to raise for one that came out of `datasets` while reading."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return error
    module = type(error).__module__.split(".")[0]
    if isinstance(error, ConnectionError | TimeoutError) or module in ("httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"):
        return _no_hub(str(error))
    return Failure(f"cannot read {label}: {type(error).__name__}: {str(error)[:300]}")


def _documents(rows: Iterator[dict[str, Any]], source: str, part: Part, language: str, split: str, broken: Broken) -> Iterator[Document]:
    """One document for every text column of every row. Empty columns (a question left out) are not documents."""
    for number, row in enumerate(rows):
        present = [column for column in part.columns if column in row]
        if not present:
            raise Failure(f"{source} {part.config or ''} has no column {' or '.join(part.columns)}; its columns are {', '.join(row)}")
        for column in present:
            text = _text(row[column])
            if text is None:
                broken(source, "not text", f"{split} row {number}: {type(row[column]).__name__}")
            elif text:
                yield Document(text, language, source, f"{part.config or ''}/{split}/{number}/{column}")


def _text(value: Any) -> str | None:
    """A column's text: a string, a list of characters (KLUE ner), or turns of a dialogue (KLUE wos). None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "".join(value)
    if isinstance(value, list) and all(isinstance(turn, dict) and isinstance(turn.get("text"), str) for turn in value):
        return "\n".join(turn["text"] for turn in value)
    return "" if value is None else None


def quiet_hub() -> None:
    """No progress bars and retry chatter of the hub's libraries: the preparation shows its own progress."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    for name in ("huggingface_hub", "fsspec", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)


def reach_hub() -> None:
    """Ask the hub for a sign of life before `datasets` spends half a minute on retries. Raises Failure without an answer in ten seconds."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:  # the HTTP library behind the session changed between releases, and with it the exceptions
        raise _no_hub(str(error)) from error


def _no_hub(reason: str) -> Failure:
    return Failure(
        f"cannot reach the Hugging Face hub ({' '.join(reason.split())[:160]}); "
        "--source DIR reads a local copy, and 'braingpt data prepare sample' needs no network"
    )
