"""lineage.json of a run folder: what a run was trained from, an entry for each start that changed something.

A start names its step, the data and the settings from there on, and its parent where the run branched off a
checkpoint of another run. `commands` says how to repeat all of it.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braingpt.recipes import Recipe
from braingpt.utils.atomic_write import write_atomically

LINEAGE = "lineage.json"
# Settings that may differ in a branch, which has its own run folder. Model, optimizer and batches stay.
BRANCH = (
    "train.lr",
    "train.embedding_rate",
    "train.schedule",
    "train.warmup",
    "train.final_lr",
    "train.weight_decay",
    "train.betas",
    "train.clip",
    "train.skip_sigma",
    "train.seed",
    "train.dtype",
    "data.mixture",
    "data.reset_at_documents",
)
# Settings of a start that are kept, because they change what the run learns.
KEPT = ("train.steps", *BRANCH)


class Parent(BaseModel):
    """The checkpoint of another run that a run began with; `sha256` is the hash of its weights."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str
    step: int = Field(ge=0)
    sha256: str


class Start(BaseModel):
    """A start: what holds after `step`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: int = Field(ge=0)
    data: list[str]
    data_sha256: str
    settings: dict[str, Any]
    parent: Parent | None = None


class Lineage(BaseModel):
    """All starts that changed something, the first one first."""

    model_config = ConfigDict(extra="forbid")

    starts: list[Start]


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The values of the settings KEPT, by dotted key."""
    tree = recipe.model_dump(mode="json")
    return {key: tree[key.partition(".")[0]][key.partition(".")[2]] for key in KEPT}


def start_of(recipe: Recipe, step: int, data_sha256: str, parent: Parent | None = None) -> Start:
    """The start after `step` with a recipe, whose folders have the `data_identity` `data_sha256`."""
    return Start(
        step=step,
        data=list(recipe.data.folders),
        data_sha256=data_sha256,
        settings=settings_of(recipe),
        parent=parent,
    )


def read_lineage(run: Path, note: Callable[[str], None] = lambda text: None) -> list[Start]:
    """The starts of the run at `run`; none where an older version trained it, or the file is damaged.

    `note` receives a line where it is damaged.
    """
    path = Path(run) / LINEAGE
    if not path.is_file():
        return []
    try:
        return Lineage.model_validate_json(path.read_bytes()).starts
    except ValidationError as error:
        first = error.errors()[0]
        reason = " ".join([".".join(map(str, first["loc"])), *first["msg"].split()])[:100].strip()
        note(f"{path} is damaged ({reason}): what the run was trained from before is not known")
        return []


def record_start(run: Path, start: Start, begun: Start | None, note: Callable[[str], None]) -> None:
    """Add a start to the lineage of a run, unless nothing has changed. Only the run's writer may call this.

    Args:
        run: The run folder.
        start: The start.
        begun: What held in the checkpoint that the run continues from; it becomes the first entry where the
            lineage has none.
        note: Receives a line where the lineage is damaged.
    """
    # A start at this step or later has left nothing.
    starts = [one for one in read_lineage(run, note) if one.step < start.step]
    if not starts and begun is not None and start.parent is None:
        starts = [begun.model_copy(update={"step": 0})]
    if not starts or (starts[-1].data_sha256, starts[-1].settings) != (start.data_sha256, start.settings):
        starts.append(start)
    write_atomically(Path(run) / LINEAGE, Lineage(starts=starts).model_dump_json(indent=1) + "\n")


def in_words(starts: list[Start]) -> list[str]:
    """The parent, and each change of data or settings, a line each; nothing for a plain run."""
    lines = []
    for number, start in enumerate(starts):
        if parent := start.parent:
            lines.append(
                f"parent: step {parent.step} of {parent.checkpoint} (weights {parent.sha256[:12]}), "
                f"continued with {', '.join(start.data)}"
            )
        elif number:
            former = starts[number - 1]
            changed = [
                f"{key}={value}" for key, value in start.settings.items() if former.settings.get(key) != value
            ]
            if start.data_sha256 != former.data_sha256:
                changed.insert(0, f"data {', '.join(start.data)} (before: {', '.join(former.data)})")
            lines.append(f"from step {start.step} on: {', '.join(changed)}")
    return lines


def commands(run: Path, recipe: Recipe, starts: list[Start]) -> list[str]:
    """The commands that repeat a run into the folder NEW, from its recipe and its lineage."""
    given = settings_of(recipe)
    starts = starts or [start_of(recipe, 0, "")]
    lines = []
    for number, start in enumerate(starts):
        words = ["braingpt train --recipe", shlex.quote(str(run / "recipe.yaml"))]
        if start.parent:
            words += ["--resume", shlex.quote(start.parent.checkpoint)]
        elif number:
            words.append("--resume auto")
        words += [word for folder in start.data for word in ("--data", shlex.quote(folder))]
        for key, value in start.settings.items():
            if given.get(key) != value:
                words += ["--set", shlex.quote(f"{key}={json.dumps(value, ensure_ascii=False)}")]
        lines.append(" ".join([*words, "--out NEW"]))
        end = starts[number + 1].step if number + 1 < len(starts) else None
        if end is not None and end < start.settings.get("train.steps", end):
            lines.append(f"# stop it after step {end} with Ctrl-C, which saves a checkpoint")
    return lines
