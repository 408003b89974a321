"""Whether a run may continue from a checkpoint: which recipe it has, and what of the recipe may change.

Settings that decide the numbers (model, batches, rate, seed) must be those the run began with, so that a
resumed run equals one that never stopped. Other settings (how long, how often to validate, how much at a
time) may change. A branch, which has its own run folder, may also change what `lineage.BRANCH` names.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.data.batches.mixture import is_schedule
from braingpt.errors import UserError
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.run.flat_settings import flat_settings
from braingpt.train.run.folder import RECIPE, run_of, run_recipe
from braingpt.train.run.lineage import BRANCH

# Settings that may differ from those the run began with.
FREE = (
    "name",
    "data.folders",
    "train.steps",
    "train.micro_batch",
    "train.compile",
    "train.eval_every",
    "train.eval_windows",
    "train.save_every",
    "train.keep",
    "train.async_save",
    "train.rewinds",
    "train.recompute",
    "train.loggers",
    "train.parallel",
    "train.offload",
)


def recipe_to_train(
    name: str | None, out: Path | None, resume: str | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe of a run, with `overrides` applied: `name`'s, or that of the run to resume.

    Raises:
        UserError: There is neither a name nor a run to resume.
    """
    if name:
        return load_recipe(name, list(overrides))
    if resume and resume != "auto":
        return checkpoint.run_recipe(listing.resolve(resume), overrides)
    if resume and out and (Path(out) / RECIPE).is_file():
        return run_recipe(out, overrides)
    if resume and out:
        raise UserError(f"there is no run {out} to continue; --recipe NAME starts one")
    if resume:
        raise UserError("--resume auto needs --out RUN or --recipe NAME")
    raise UserError("--recipe NAME is missing; `braingpt recipes` lists the names")


def of_this_run(
    recipe: Recipe, folders: Sequence[Path | str] | None, start: Path | None, run: Path
) -> Recipe:
    """The recipe with the folders it trains on: those given, those the run began with, or its own.

    Args:
        recipe: The recipe that was asked for.
        folders: The folders that were given.
        start: The checkpoint to continue from, or None.
        run: The run folder.

    Raises:
        UserError: The recipe cannot continue from the checkpoint `start`.
    """
    begun = checkpoint.run_recipe(start) if start else None
    paths = tuple(map(str, folders or (begun or recipe).data.folders))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folders": paths})})
    if begun and start:
        check_agreement(begun, recipe, start, is_branch(start, run))
        step = checkpoint.read_state(start)["step"]
        if recipe.train.steps < step:
            raise UserError(
                f"{start} is at step {step} already, and train.steps is {recipe.train.steps}; "
                f"to continue, --set train.steps=N with N above {step}"
            )
    return recipe


def is_branch(start: Path, run: Path) -> bool:
    """Whether a run that continues from the checkpoint `start` is another one than that of `start`."""
    return run_of(start).resolve() != Path(run).resolve()


def check_agreement(saved: Recipe, asked: Recipe, folder: Path, branch: bool) -> None:
    """Raise UserError naming the first setting that differs from what the run began with and may not."""
    before, now = flat_settings(saved), flat_settings(asked)
    # A mixture's schedule is stretched over the steps, which must stay then.
    fixed = {"train.steps"} if is_schedule(saved.data.mixture) and not branch else set()
    free = set(FREE) - fixed | (set(BRANCH) if branch else set())
    for key in dict.fromkeys(["model.architecture", *before, *now]):
        if before.get(key) != now.get(key) and not _is_among(key, free):
            way = "resume with the same settings, or train a new run with --recipe and a new --out"
            if not branch and _is_among(key, BRANCH):
                way = "resume with the same settings, or branch into a new run: " + (
                    f"--resume {shlex.quote(str(folder))} --out NEW"
                )
            raise UserError(
                f"{folder} was trained with {key} = {_shown(before.get(key))}, the recipe asks for"
                f" {_shown(now.get(key))}; {way}"
            )


def _is_among(key: str, keys: Collection[str]) -> bool:
    """Whether a dotted key, or the setting that it is a part of, is among `keys`."""
    return key in keys or any(key.startswith(f"{one}.") for one in keys)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
