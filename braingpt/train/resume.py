"""Where a run begins: anew, or after a checkpoint; and whether the two fit together.

What decides the numbers (model, batches, rate, seed) must be what the run began with, so that stopping and
going on equals never having stopped. What does not (how long, how often to look, how much at a time) may
change.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.data.batches.mixture import is_schedule
from braingpt.errors import Failure, UserError
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.growth import stand_at
from braingpt.train.run.folder import RECIPE, is_run

FREE = (
    "name", "data.folders",
    "train.steps", "train.micro_batch", "train.compile", "train.eval_every", "train.eval_windows", "train.save_every", "train.keep",
    "train.async_save", "train.rewinds", "train.recompute", "train.loggers", "train.parallel", "train.offload",
)  # fmt: skip


def find_start_checkpoint(
    out: Path, resume: str | None, note: Callable[[str], None] = lambda text: None
) -> Path | None:
    """The checkpoint to go on from, every file of it checked, or None to begin anew.

    `resume`: None (the run must be new), "auto" (the newest undamaged checkpoint in `out`, if any), or a run
        folder or checkpoint. "auto" sets damaged ones aside and says so through `note`. Raises UserError when
        going on would overwrite later steps of a run, Failure where nothing undamaged is left.
    """
    last = listing.newest(out)
    if resume == "auto":
        return _newest_whole(out, note)
    if resume is None:
        if is_run(out):
            raise UserError(f"{out} exists; --resume auto goes on, --out starts elsewhere")
        return None
    chosen = listing.resolve(resume)
    if is_run(out) and run_of(chosen).resolve() != Path(out).resolve():
        raise UserError(f"{out} is another run than {chosen}'s; --out takes a new folder")
    if last and last.resolve() != chosen.resolve():
        raise UserError(
            f"{out} has gone on to {last.name}; --out starts a branch from {chosen.name} in a new folder"
        )
    checkpoint.verify(chosen)
    return chosen


def _newest_whole(out: Path, note: Callable[[str], None]) -> Path | None:
    damaged: list[tuple[Path, Failure]] = []
    for folder in reversed(listing.list_checkpoints(out)):
        try:
            checkpoint.verify(folder)
        except Failure as failure:
            damaged.append((folder, failure))
            continue
        for broken, failure in damaged:
            note(f"{str(failure).partition(';')[0]}; kept as {listing.set_aside(broken)}")
        return folder
    if damaged:
        raise Failure(
            f"no checkpoint in {out} is whole: {str(damaged[0][1]).partition(';')[0]}; --out starts a new run elsewhere"
        )
    return None


def run_of(folder: Path) -> Path:
    """The run folder a checkpoint belongs to; the checkpoint's own parent when it was moved out of one."""
    return folder.parent.parent if folder.parent.name == listing.CHECKPOINTS else folder.parent


def state_of(trainer: Any) -> dict[str, Any]:
    """What a step depends on beside weights, moments and its number, and what a run remembers: for a
    checkpoint's state.json.
    """
    return {
        "best": trainer.best, "seconds": trainer.seconds, "data": trainer.data, "guard": trainer.guard.state(), "calm": trainer.guard.calm,
        "rewinds": trainer.rewinds, "offset": trainer.feed.offset, "micro_batch": trainer.micro,
        "threads": trainer.threads,
        "averaged": trainer.average.count if trainer.average else 0,
    }  # fmt: skip


def restore_from(trainer: Any, start: Path) -> None:
    """Everything as it was when the checkpoint `start`, which has been verified, was saved."""
    state = checkpoint.read_state(start)
    stand_at(trainer, load_recipe(start / RECIPE).model.layers)
    checkpoint.load_weights(trainer.model, start)
    checkpoint.load_training(trainer.model, trainer.optimizer, start, trainer.average)
    trainer.step, trainer.tokens, trainer.best, trainer.seconds = (
        state["step"],
        state["tokens"],
        state["best"],
        state["seconds"],
    )
    if "guard" in state:
        trainer.guard.restore(state["guard"])
    trainer.rewinds, trainer.feed.offset = state.get("rewinds", 0), state.get("offset", 0)
    trainer.threads = state.get("threads")
    # Of other pieces sums would round otherwise.
    trainer.micro = min(trainer.config.micro_batch or state.get("micro_batch", trainer.micro), trainer.rows)
    trainer.saved = start if start.resolve().parent == trainer.run.checkpoint(0).resolve().parent else None
    if state["data"] != trainer.data:
        trainer.reporter.note("the data differ from those the run began with; going on with the new ones")


def recipe_to_train(
    name: str | None, out: Path | None, resume: str | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe named, or else the one the run to be resumed was started with, with `overrides` laid over
    it.
    """
    if name:
        return load_recipe(name, list(overrides))
    if resume and resume != "auto":
        return checkpoint.run_recipe(listing.resolve(resume), overrides)
    if resume and out and (Path(out) / RECIPE).is_file():
        return load_recipe(Path(out) / RECIPE, list(overrides))
    if resume and out:
        raise UserError(f"there is no run {out} to go on with; --recipe NAME starts one")
    if resume:
        raise UserError("--resume auto needs --out RUN or --recipe NAME")
    raise UserError("--recipe NAME is missing; `braingpt recipes` lists the names")


def of_this_run(recipe: Recipe, folders: Sequence[Path | str] | None, start: Path | None) -> Recipe:
    """The recipe with the folders it trains on: those given, or the ones the run began with, or its own.

    Raises UserError where it does not go on from the checkpoint `start`.
    """
    begun = checkpoint.run_recipe(start) if start else None
    folders = tuple(map(str, folders or (begun or recipe).data.folders))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folders": folders})})
    if begun:
        check_agreement(begun, recipe, start)
    return recipe


def check_agreement(saved: Recipe, asked: Recipe, folder: Path) -> None:
    """UserError naming the first setting in which a resumed run would differ from what it began with."""
    before, now = dict(_flat(saved.model_dump(mode="json"))), dict(_flat(asked.model_dump(mode="json")))
    # a schedule is laid over the steps
    free = set(FREE) - ({"train.steps"} if is_schedule(saved.data.mixture) else set())
    for key in dict.fromkeys(["model.architecture", *before, *now]):
        if key not in free and before.get(key) != now.get(key):
            raise UserError(
                f"{folder} was trained with {key} = {_shown(before.get(key))}, the recipe asks for {_shown(now.get(key))};"
                " resume with the same settings, or start elsewhere with --out"
            )


def data_identity(folders: Sequence[Path]) -> str:
    """SHA-256 over the manifests of the prepared folders: equal when the data are the same, wherever they
    lie.
    """
    digest = hashlib.sha256()
    for folder in folders:
        digest.update((Path(folder) / "manifest.json").read_bytes())
    return digest.hexdigest()


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
