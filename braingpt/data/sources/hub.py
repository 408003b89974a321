"""Datasets of the Hugging Face hub, or copies of them in a folder: which files a configuration and split
consist of.

`datasets` resolves them exactly as `load_dataset` would (the card's configurations, else the file names), for
the hub and for a folder alike; no loading script is ever run. The files are then read by `row_reader.py` as
the user's own are: a broken row costs a row and not the file, and reading continues at any place after an
interruption. Every error of the hub becomes one line that says what to do.
"""

import errno
import json
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from braingpt.data.sources.byte_reader import File, format_suffix, local_file
from braingpt.data.sources.layout import SUFFIXES
from braingpt.errors import Failure, UserError, did_you_mean

# The revision at which the hub keeps its own parquet copy of most datasets.
CONVERTED_REVISION = "refs/convert/parquet"


class Absent(Exception):
    """There is no such configuration, split or dataset.

    Attributes:
        reason: What is not there, in words.
        name: Name of what is not there, where the dataset itself is.
        known: Names of what there is instead.
    """

    def __init__(self, reason: str, name: str = "", known: list[str] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.name, self.known = reason, name, known or []


class Listing(NamedTuple):
    """The files of one configuration and split.

    Attributes:
        files: The files in reading order.
        revision: The commit they belong to; None for a local copy.
    """

    files: list[File]
    revision: str | None


def list_files(id: str, config: str | None, split: str, revision: str | None, source: Path | None) -> Listing:
    """The files of a configuration and split.

    Args:
        id: The dataset's id, NAMESPACE/NAME.
        config: Configuration; None for the only one.
        split: Split, such as "train".
        revision: Branch, tag or commit; None for the newest.
        source: Folder with copies in the hub's layout; None for the hub.

    Raises:
        Absent: There is no such dataset, configuration or split.
        UserError: A configuration must be named, or the files hold no text.
        Exception: The hub's libraries raise their own errors; `explain_error` puts them into words.
    """
    splits, commit = _resolve(id, config, revision, str(source) if source else None)
    if split not in splits:
        part = " ".join(filter(None, (id, config)))
        raise Absent(f"{part} has no split '{split}'", " ".join(filter(None, (config, split))), list(splits))
    names = splits[split]
    unread = sorted({format_suffix(name) or name for name in names} - set(SUFFIXES))
    if unread:
        advice = f"; the hub's own copy may do: --revision {CONVERTED_REVISION}"
        raise UserError(
            f"{id} consists of {', '.join(unread)} files, which hold no text that braingpt reads"
            f"{'' if revision == CONVERTED_REVISION or source else advice}"
        )
    return Listing([_file(name, id, source) for name in names], commit)


def glob_files(id: str, pattern: str, revision: str | None, source: Path | None) -> Listing:
    """Files by their names, sorted, for a dataset without configurations.

    Raises Absent, and the hub's own errors.
    """
    if source is not None:
        home = (source / id).resolve()
        listing = Listing([local_file(path, home) for path in sorted(home.glob(pattern))], None)
    else:
        import huggingface_hub

        commit = _commit(id, revision)
        system = huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT)
        repository = f"datasets/{id}@{commit}"
        names = sorted(system.glob(f"{repository}/{pattern}"))
        listing = Listing(
            [File(f"hf://{name}", name.removeprefix(f"{repository}/")) for name in names], commit
        )
    if not listing.files:
        raise Absent(f"{id} has no {pattern}", pattern)
    return listing


def _commit(id: str, revision: str | None) -> str:
    """The commit that a branch is at now.

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
        return local_file(Path(name).resolve(), (source / id).resolve())
    return File(name, name.removeprefix(f"hf://datasets/{id}@").split("/", 1)[1])


@lru_cache(maxsize=32)
def _resolve(
    id: str, config: str | None, revision: str | None, source: str | None
) -> tuple[dict[str, list[str]], str | None]:
    """File names of every split of a configuration, and the commit."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    if source and not os.path.isdir(os.path.join(source, id)):
        raise Absent(f"{id} is not under {source}")
    base = os.path.abspath(os.path.join(source, id)) if source else id
    commit = None if source else _commit(id, revision)
    try:
        builder = datasets.load_dataset_builder(base, config, revision=commit)
    except ValueError as error:
        # `datasets` has no narrower type for these.
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
                f"{id} is a loading script, which braingpt never runs; "
                f"the hub's own copy may do: --revision {CONVERTED_REVISION}"
            ) from error
        raise
    except (FileNotFoundError, DatasetNotFoundError) as error:
        if source:
            raise Absent(f"{id} under {source} has no data files") from error
        raise
    if not builder.config.data_files:
        raise ConnectionError(f"the hub did not list the files of {id}")
    files = {str(split): [str(name) for name in names] for split, names in builder.config.data_files.items()}
    return files, commit


def _between(text: str, start: str, end: str) -> list[str]:
    """The names listed in `text` between two marks."""
    _, found, rest = text.partition(start)
    return [name.strip(" '\"\n") for name in rest.partition(end)[0].split(",")] if found else []


def _absent_error(error: Absent) -> UserError:
    """The error for a dataset the user named that is not there."""
    known = (
        did_you_mean(error.reason.rsplit("'", 2)[-2], error.known)
        if error.known and "'" in error.reason
        else ""
    )
    return UserError(f"{error.reason}{known}")


def is_transient(error: BaseException) -> bool:
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
        # Fewer bytes came than were announced.
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


def explain_error(error: Exception, id: str, label: str, revision: str | None) -> Exception:
    """The error to show for one that came out of listing or reading a file.

    A full disk and our own errors stay what they are.
    """
    import huggingface_hub
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError
    from huggingface_hub import errors

    if isinstance(error, UserError | Failure) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    ):
        return error
    if isinstance(error, Absent):
        return _absent_error(error)
    chain = _chain(error)
    page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{id}"
    if any(isinstance(one, errors.GatedRepoError) or "is a gated dataset" in str(one) for one in chain):
        return UserError(
            f"{id} is gated: ask for access at {page}, then log in with 'hf auth login' or set HF_TOKEN"
        )
    if any(isinstance(one, errors.RevisionNotFoundError) for one in chain):
        return UserError(f"{id} has no revision '{revision}'; {page}/tree/main lists the branches")
    if any(isinstance(one, errors.RepositoryNotFoundError | errors.HFValidationError) for one in chain):
        return UserError(
            f"there is no dataset {id} on the hub, or it is private: "
            "check the spelling, or log in with 'hf auth login'"
        )
    if any(getattr(getattr(one, "response", None), "status_code", None) in (401, 403) for one in chain):
        return UserError(
            f"the hub refuses {id} to this account: log in with 'hf auth login' or set HF_TOKEN; "
            f"{page} says who may read it"
        )
    if is_transient(error) or any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return _unreachable(f"{label}: {_reason(error)}")
    if any(isinstance(one, DataFilesNotFoundError | EmptyDatasetError) for one in chain):
        return UserError(
            f"{id} has no data files"
            + ("" if revision else f" on main; perhaps --revision {CONVERTED_REVISION}")
        )
    if any(isinstance(one, errors.EntryNotFoundError | FileNotFoundError) for one in chain):
        return Failure(f"{label} is no longer where it was listed ({_reason(error)})")
    return Failure(f"cannot read {label}: {_reason(error)}")


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that led to it; `datasets` hides causes with `from None`."""
    chain: list[BaseException] = []
    pending = [error]
    while pending:
        one = pending.pop(0)
        if one is not None and not any(one is other for other in chain):
            chain.append(one)
            pending += [one.__cause__, one.__context__]
    return chain


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def silence_hub() -> None:
    """No progress bars and retry chatter of the hub's libraries: the preparation shows its own progress."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    for name in ("huggingface_hub", "fsspec", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_reachable() -> None:
    """Check that the hub answers, before the long retries of reading begin.

    Raises Failure without an answer in ten seconds.
    """
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:
        # The session's HTTP library changed between releases, and with it the exceptions.
        raise _unreachable(str(error)) from error


def _unreachable(reason: str) -> Failure:
    """The error for a hub that does not answer."""
    return Failure(
        f"cannot reach the Hugging Face hub ({' '.join(reason.split())[:200]}); "
        "the same command continues where it stopped, --source DIR reads a local copy, "
        "and 'braingpt data prepare sample' needs no network"
    )


def forget_listings() -> None:
    """Drop what is remembered of listings, so that the next attempt asks again."""
    import huggingface_hub

    _resolve.cache_clear()
    huggingface_hub.HfFileSystem(endpoint=huggingface_hub.constants.ENDPOINT).invalidate_cache()
