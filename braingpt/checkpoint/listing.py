"""The checkpoints of a run folder: list, find, prune and remove them.

`format.py` describes what is in a checkpoint.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from braingpt.errors import UserError
from braingpt.utils.file_lock import is_named
from braingpt.utils.paths import require_utf8, shell_word
from braingpt.utils.scratch import hidden_beside, remove_tree

# The folder of the checkpoints in a run folder.
CHECKPOINTS = "checkpoints"
_NAME = re.compile(r"step-(\d{7,})")


def list_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest step first."""
    steps = [
        (int(match[1]), path)
        for path in (Path(run) / CHECKPOINTS).glob("step-*")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(steps) if (path / "state.json").is_file()]


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None for another name."""
    match = _NAME.fullmatch(Path(folder).name)
    return int(match[1]) if match else None


def incomplete(run: Path) -> list[Path]:
    """Folders named as a checkpoint that have no state.json: something was taken out of them."""
    folders = [path for path in (Path(run) / CHECKPOINTS).glob("step-*") if step_of(path) is not None]
    return sorted(path for path in folders if path.is_dir() and not (path / "state.json").is_file())


def newest(run: Path) -> Path | None:
    """The run's checkpoint with the highest step."""
    return next(reversed(list_checkpoints(run)), None)


def resolve(run: Path | str | None, runs: Path = Path("runs")) -> Path:
    """The checkpoint that a command uses.

    Args:
        run: A checkpoint, a run folder, whose newest checkpoint is taken, or None: the newest run.
        runs: The folder of run folders.

    Raises:
        UserError: There is no checkpoint; the message names the command that makes one.
    """
    if run is None:
        every = [path for folder in runs.glob("*") if (path := newest(folder))]
        if not every:
            commands = "`braingpt quickstart` trains a first one, `braingpt train --recipe NAME` a larger one"
            raise UserError(f"no trained model under {runs}/; {commands}")
        return max(every, key=_time_of)
    run = Path(run)
    require_utf8(run, "the run")
    if (run / "state.json").is_file():
        return run
    if not run.exists():
        named = Path(runs) / run
        made = f"`braingpt train --recipe NAME --out {shell_word(run)}` makes it"
        hint = f"did you mean {named}?" if named.is_dir() else made
        raise UserError(f"there is no run {run}; {hint}")
    # A run that saves may delete all that were listed before they are looked at.
    checkpoint = newest(run) or newest(run)
    if checkpoint is None:
        if damaged := incomplete(run) or ([run] if step_of(run) is not None else []):
            raise UserError(f"{damaged[-1]} is damaged: state.json is missing; use another checkpoint")
        command = f"braingpt train --recipe NAME --out {shell_word(run / 'NAME')}"
        if (run / "recipe.yaml").is_file():
            command = f"braingpt train --resume auto --out {shell_word(run)}"
        raise UserError(f"{run} holds no checkpoint; `{command}` makes one")
    return checkpoint


def _time_of(folder: Path) -> int:
    """When the checkpoint was made; 0 where it has been pruned meanwhile."""
    try:
        return (folder / "state.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Keep a checkpoint from being pruned while it is read; the value is whether it is still there.

    Readers share the lock of the folder, and `prune` leaves a folder that is locked to the next save.
    A file system without locks, and a rewind, may still take the folder away: the reader then takes the
    newest checkpoint (`load.py`).
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Between the opening and the lock it may have been renamed, in order to be removed.
        yield is_named(handle, folder)
    finally:
        os.close(handle)


def _is_read(folder: Path) -> bool:
    """Whether another process reads the checkpoint, so that it must stay."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def prune(run: Path, keep: int, also: Iterable[Path] = ()) -> None:
    """Delete the run's checkpoints except the newest `keep`, those in `also`, and those that are read."""
    every, kept = list_checkpoints(run), set(also)
    for path in every[: max(0, len(every) - keep)]:
        if path not in kept and not _is_read(path):
            remove(path)


def sweep(run: Path) -> None:
    """Delete unfinished checkpoints of a killed process. Only the holder of the run's lock may call this."""
    for path in (Path(run) / CHECKPOINTS).glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that the run no longer lists it; return its new path."""
    aside = folder.with_name(f"damaged-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def remove(folder: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that no half of it is seen under its name."""
    if folder.exists():
        hidden = hidden_beside(folder, f"old-{os.getpid()}")
        remove_tree(hidden)
        os.rename(folder, hidden)
        shutil.rmtree(hidden)


def name_of(step: int) -> str:
    """The folder name of step `step`'s checkpoint."""
    return f"step-{step:07d}"
