"""The checkpoints of a run folder: list, find, prune and remove them.

`format.py` describes what is in a checkpoint.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from braingpt.errors import UserError
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
        return max(every, key=lambda path: (path / "state.json").stat().st_mtime_ns)
    run = Path(run)
    require_utf8(run, "the run")
    if (run / "state.json").is_file():
        return run
    if not run.exists():
        named = Path(runs) / run
        made = f"`braingpt train --recipe NAME --out {shell_word(run)}` makes it"
        hint = f"did you mean {named}?" if named.is_dir() else made
        raise UserError(f"there is no run {run}; {hint}")
    checkpoint = newest(run)
    if checkpoint is None:
        command = f"braingpt train --recipe NAME --out {shell_word(run / 'NAME')}"
        if (run / "recipe.yaml").is_file():
            command = f"braingpt train --resume auto --out {shell_word(run)}"
        raise UserError(f"{run} holds no checkpoint; `{command}` makes one")
    return checkpoint


def prune(run: Path, keep: int, also: Iterable[Path] = ()) -> None:
    """Delete the run's checkpoints except the newest `keep` and those in `also`."""
    every = list_checkpoints(run)
    for path in every[: max(0, len(every) - keep)]:
        if path not in set(also):
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
