"""Whether a run may continue from a checkpoint: which recipe it has, and what of the recipe may change.

Settings that decide the numbers (model, batches, rate, seed) must be those the run began with, so that a
resumed run equals one that never stopped. Other settings (how long, how often to validate, how much at a
time) may change.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.data.batches.mixture import is_schedule
from braingpt.errors import UserError
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.run.flat_settings import flat_settings
from braingpt.train.run.folder import RECIPE

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
        return load_recipe(Path(out) / RECIPE, list(overrides))
    if resume and out:
        raise UserError(f"there is no run {out} to continue; --recipe NAME starts one")
    if resume:
        raise UserError("--resume auto needs --out RUN or --recipe NAME")
    raise UserError("--recipe NAME is missing; `braingpt recipes` lists the names")


def of_this_run(recipe: Recipe, folders: Sequence[Path | str] | None, start: Path | None) -> Recipe:
    """The recipe with the folders it trains on: those given, those the run began with, or its own.

    Raises:
        UserError: The recipe cannot continue from the checkpoint `start`.
    """
    begun = checkpoint.run_recipe(start) if start else None
    paths = tuple(map(str, folders or (begun or recipe).data.folders))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folders": paths})})
    if begun and start:
        check_agreement(begun, recipe, start)
    return recipe


def check_agreement(saved: Recipe, asked: Recipe, folder: Path) -> None:
    """Raise UserError naming the first setting that differs from what the run began with and may not."""
    before, now = flat_settings(saved), flat_settings(asked)
    # A mixture's schedule is stretched over the steps, which must stay then.
    free = set(FREE) - ({"train.steps"} if is_schedule(saved.data.mixture) else set())
    for key in dict.fromkeys(["model.architecture", *before, *now]):
        if key not in free and before.get(key) != now.get(key):
            raise UserError(
                f"{folder} was trained with {key} = {_shown(before.get(key))}, the recipe asks for"
                f" {_shown(now.get(key))}; resume with the same settings, or start a new run with --out"
            )


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
