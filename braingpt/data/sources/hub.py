"""Datasets of the Hugging Face hub, or copies of them in a folder: which files a configuration and split
consist of.

`datasets` resolves them exactly as `load_dataset` would (the card's configurations, else the file names), for
the hub and for a folder alike; no loading script is ever run. The files are then read by `rows.py` as the
user's own are: a broken row costs a row and not the file, and reading goes on at any place after an
interruption. Every error of the hub becomes one line that says what to do.
"""

import errno
import json
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from braingpt.data.sources.byte_reader import File, kind, local
from braingpt.data.sources.row_reader import SUFFIXES
from braingpt.errors import Failure, UserError, did_you_mean

# where the hub keeps its own parquet copy of most datasets
CONVERTED = "refs/convert/parquet"


class Absent(Exception):
    """There is no such configuration, split or dataset.

    `short`: its name, where the dataset is there; `known`: what there is instead.
    """

    def __init__(self, reason: str, short: str = "", known: list[str] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.short, self.known = reason, short, known or []


class Listing(NamedTuple):
    """Files of one configuration and split, in reading order, and the commit they belong to (None for a local
    copy).
    """

    files: list[File]
    revision: str | None


def list_files(id: str, config: str | None, split: str, revision: str | None, source: Path | None) -> Listing:
    """The files of a configuration and split. `source`: folder with local copies, or None for the hub.

    Raises Absent, UserError for a configuration that must be named or a format without text, and the hub's
    own errors.
    """
    splits, commit = _resolve(id, config, revision, str(source) if source else None)
    if split not in splits:
        part = " ".join(filter(None, (id, config)))
        raise Absent(f"{part} has no split '{split}'", " ".join(filter(None, (config, split))), list(splits))
    names = splits[split]
    other = sorted({kind(name) or name for name in names} - set(SUFFIXES))
    if other:
        convert = (
            "" if revision == CONVERTED or source else f"; the hub's own copy may do: --revision {CONVERTED}"
        )
        raise UserError(
            f"{id} consists of {', '.join(other)} files, which hold no text braingpt reads{convert}"
        )
    return Listing([_file(name, id, source) for name in names], commit)


def glob_files(id: str, pattern: str, revision: str | None, source: Path | None) -> Listing:
    """Files by their names, sorted, for a dataset without configurations.

    Raises Absent, and the hub's own errors.
    """
    if source is not None:
        home = (source / id).resolve()
        listing = Listing([local(path, home) for path in sorted(home.glob(pattern))], None)
    else:
        import huggingface_hub

        commit = _commit(id, revision)
        system = huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT)
        home_of_it = f"datasets/{id}@{commit}"
        names = sorted(system.glob(f"{home_of_it}/{pattern}"))
        listing = Listing(
            [File(f"hf://{name}", name.removeprefix(f"{home_of_it}/")) for name in names], commit
        )
    if not listing.files:
        raise Absent(f"{id} has no {pattern}", pattern)
    return listing


def _commit(id: str, revision: str | None) -> str:
    """The commit a branch stands for now.

    Raises the hub's own errors, which `load_dataset_builder` would turn into one without a cause.
    """
    import huggingface_hub

    return (
        huggingface_hub.HfApi(endpoint=huggingface_hub.constants.ENDPOINT)
        .dataset_info(id, revision=revision, timeout=30)
        .sha
        or "main"
    )


def _file(name: str, id: str, source: Path | None) -> File:
    if source is not None:
        return local(Path(name).resolve(), (source / id).resolve())
    return File(name, name.removeprefix(f"hf://datasets/{id}@").split("/", 1)[1])


@lru_cache(maxsize=32)
def _resolve(
    id: str, config: str | None, revision: str | None, source: str | None
) -> tuple[dict[str, list[str]], str | None]:
    """File names of every split of a configuration, and the commit."""
    import datasets

    if source and not os.path.isdir(os.path.join(source, id)):
        raise Absent(f"{id} is not under {source}")
    base = os.path.abspath(os.path.join(source, id)) if source else id
    commit = None if source else _commit(id, revision)
    try:
        builder = datasets.load_dataset_builder(base, config, revision=commit)
    except ValueError as error:
        # `datasets` has no narrower type
        reason = str(error)
        known = _between(reason, "Available: [", "]") or _between(reason, "available configs: [", "]")
        if reason.startswith("BuilderConfig"):
            raise Absent(f"{id} has no configuration '{config}'", config or "", known) from error
        if reason.startswith("Config name is missing"):
            listed = f": {', '.join(known)}" if known else ""
            raise UserError(f"{id} has several configurations; name one with --config{listed}") from error
        raise
    except RuntimeError as error:
        if "scripts are no longer supported" in str(error):
            raise UserError(
                f"{id} is a loading script, which is never run; the hub's own copy may do: --revision {CONVERTED}"
            ) from error
        raise
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        if source:
            raise Absent(f"{id} under {source} has no data files") from error
        raise
    if not builder.config.data_files:
        raise ConnectionError(f"the hub did not list the files of {id}")
    files = {str(split): [str(name) for name in names] for split, names in builder.config.data_files.items()}
    return files, commit


def _between(text: str, start: str, end: str) -> list[str]:
    _, found, rest = text.partition(start)
    return [name.strip(" '\"\n") for name in rest.partition(end)[0].split(",")] if found else []


def absent(id: str, error: Absent) -> UserError:
    """The error for a dataset the user named that is not there."""
    known = (
        did_you_mean(error.reason.rsplit("'", 2)[-2], error.known)
        if error.known and "'" in error.reason
        else ""
    )
    return UserError(f"{error.reason}{known}")


def passing(error: BaseException) -> bool:
    """Whether reading may succeed a little later: no answer, a broken connection, an overloaded or failing
    server.
    """
    from huggingface_hub import errors

    chain = _chain(error)
    if isinstance(error, UserError | Failure) or any(
        isinstance(one, errors.OfflineModeIsEnabled) for one in chain
    ):
        return False
    for one in chain:
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status in (408, 429) or (status or 0) >= 500:
            return True
        if isinstance(one, ConnectionError | TimeoutError | json.JSONDecodeError) or (
            _is_http(one) and status is None
        ):
            return True
        # fewer bytes came than were announced
        if isinstance(one, OSError) and "Consistency check failed" in str(one):
            return True
    return False


def _is_http(error: BaseException) -> bool:
    """An error of the HTTP library, which has changed between releases of `huggingface_hub`."""
    return type(error).__module__.split(".")[0] in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "requests",
        "urllib3",
        "aiohttp",
    )


def explain(error: BaseException, id: str, label: str, revision: str | None) -> Exception:
    """The error to show for one that came out of listing or reading a file.

    A full disk and our own errors stay what they are.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub import errors

    if isinstance(error, UserError | Failure) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    ):
        return error
    if isinstance(error, Absent):
        return absent(id, error)
    chain = _chain(error)
    page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{id}"
    if any(isinstance(one, errors.GatedRepoError) or "is a gated dataset" in str(one) for one in chain):
        return UserError(f"{id} is gated: ask for access at {page}, then 'hf auth login' or set HF_TOKEN")
    if any(isinstance(one, errors.RevisionNotFoundError) for one in chain):
        return UserError(f"{id} has no revision '{revision}'; {page}/tree/main shows what there is")
    if any(isinstance(one, errors.RepositoryNotFoundError | errors.HFValidationError) for one in chain):
        return UserError(
            f"no dataset {id} on the hub, or it is private: check the spelling, or 'hf auth login'"
        )
    if any(getattr(getattr(one, "response", None), "status_code", None) in (401, 403) for one in chain):
        return UserError(
            f"the hub refuses {id} to this account: 'hf auth login' or set HF_TOKEN; {page} says who may read it"
        )
    if passing(error) or any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return no_hub(f"{label}: {_reason(error)}")
    empty = (datasets.exceptions.DataFilesNotFoundError, datasets.data_files.EmptyDatasetError)
    if any(isinstance(one, empty) for one in chain):
        return UserError(
            f"{id} has no data files" + ("" if revision else f" on main; perhaps --revision {CONVERTED}")
        )
    if any(isinstance(one, errors.EntryNotFoundError | FileNotFoundError) for one in chain):
        return Failure(f"{label} is gone from where it was listed ({_reason(error)})")
    return Failure(f"cannot read {label}: {_reason(error)}")


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that led to it; `datasets` hides causes with `from None`."""
    found: list[BaseException] = []
    ahead = [error]
    while ahead:
        one = ahead.pop(0)
        if one is not None and not any(one is other for other in found):
            found.append(one)
            ahead += [one.__cause__, one.__context__]
    return found


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def quiet_hub() -> None:
    """No progress bars and retry chatter of the hub's libraries: the preparation shows its own progress."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    for name in ("huggingface_hub", "fsspec", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.ERROR)


def reach_hub() -> None:
    """Ask the hub for a sign of life before the long retries of work under way.

    Raises Failure without an answer in ten seconds.
    """
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:
        # the HTTP library behind the session changed between releases, and with it the exceptions
        raise no_hub(str(error)) from error


def no_hub(reason: str) -> Failure:
    """The error for a hub that does not answer."""
    return Failure(
        f"cannot reach the Hugging Face hub ({' '.join(reason.split())[:200]}); the same command goes on where it stopped, "
        "--source DIR reads a local copy, and 'braingpt data prepare sample' needs no network"
    )


def forget() -> None:
    """Drop what is remembered of listings, so that the next attempt asks anew."""
    import huggingface_hub

    _resolve.cache_clear()
    huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT).invalidate_cache()
