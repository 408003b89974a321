"""Where a run starts: fresh, or from a checkpoint; and the state a checkpoint holds beside the tensors."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.errors import Failure, UserError
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.growth import stage_recipe, with_depth
from braingpt.train.learner import Learner, Placement
from braingpt.train.run.folder import RECIPE, is_run

if TYPE_CHECKING:
    from braingpt.train.loop import Trainer


@dataclass(frozen=True)
class RunState:
    """The state of a run beside the tensors, as state.json holds it.

    Attributes:
        step: Steps taken.
        tokens: Tokens seen.
        best: Step and loss of the best validation.
        seconds: Time spent in steps.
        data: The prepared folders' `data_identity`.
        guard: `Guard.state()`; None in a checkpoint that holds none.
        calm: Whether the last step was neither skipped nor a loss spike.
        rewinds: Times the run has gone back to a checkpoint.
        offset: Steps of data that rewinds have passed over.
        micro_batch: Windows at a time.
        threads: Threads on a CPU; None where all are used.
        averaged: Steps in the average of the weights.
    """

    step: int
    tokens: int
    best: dict[str, Any] | None
    seconds: float
    data: str
    guard: dict[str, Any] | None = None
    calm: bool = True
    rewinds: int = 0
    offset: int = 0
    micro_batch: int | None = None
    threads: int | None = None
    averaged: int = 0

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "RunState":
        """The state in a checkpoint's state.json; what an older one lacks takes its default."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: state[name] for name in names if name in state})

    def extra(self) -> dict[str, Any]:
        """What state.json holds beside step and tokens."""
        return {name: value for name, value in vars(self).items() if name not in ("step", "tokens")}


def find_start_checkpoint(
    out: Path, resume: str | None, note: Callable[[str], None] = lambda text: None
) -> Path | None:
    """The checkpoint to continue from, every file of it checked, or None to start a new run.

    Args:
        out: The run folder.
        resume: None (the run must be new), "auto" (the newest undamaged checkpoint in `out`, if any), or a
            run folder or checkpoint.
        note: Prints a line for each damaged checkpoint that "auto" sets aside.

    Raises:
        UserError: The run would overwrite a run or its later steps.
        Failure: No undamaged checkpoint is left.
    """
    last = listing.newest(out)
    if resume == "auto":
        return _newest_undamaged(out, note)
    if resume is None:
        if is_run(out):
            raise UserError(f"{out} exists; continue it with --resume auto, or choose another --out")
        return None
    chosen = listing.resolve(resume)
    if is_run(out) and run_of(chosen).resolve() != Path(out).resolve():
        raise UserError(f"{out} is another run than that of {chosen}; give a new folder with --out")
    if last and last.resolve() != chosen.resolve():
        raise UserError(
            f"{out} has continued to {last.name}; start a branch from {chosen.name} with a new --out"
        )
    checkpoint.verify(chosen)
    return chosen


def _newest_undamaged(out: Path, note: Callable[[str], None]) -> Path | None:
    """The newest undamaged checkpoint; damaged ones after it are set aside."""
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
            f"every checkpoint in {out} is damaged: {str(damaged[0][1]).partition(';')[0]}; "
            "start a new run with another --out"
        )
    return None


def run_of(folder: Path) -> Path:
    """The run folder of a checkpoint; the checkpoint's own parent where it was moved out of one."""
    return folder.parent.parent if folder.parent.name == listing.CHECKPOINTS else folder.parent


def state_of(trainer: "Trainer") -> RunState:
    """The state of a run after its last step."""
    average = trainer.learner.average
    return RunState(
        step=trainer.step,
        tokens=trainer.tokens,
        best=trainer.validator.best,
        seconds=trainer.seconds,
        data=trainer.data_identity,
        guard=trainer.guard.state(),
        calm=trainer.guard.calm,
        rewinds=trainer.rewinds,
        offset=trainer.loader.offset,
        micro_batch=trainer.batching.micro,
        threads=trainer.threads,
        averaged=average.count if average else 0,
    )


def checkpoint_writer(trainer: "Trainer", folder: Path) -> Callable[[], None]:
    """A function that writes a checkpoint of a run's last step.

    With `train.async_save` it holds copies of all tensors, so that it may run while training continues;
    otherwise it holds the live tensors.

    Args:
        trainer: The run.
        folder: The checkpoint's folder.
    """
    learner, config, best = trainer.learner, trainer.config, trainer.validator.best
    recipe, state = stage_recipe(trainer.recipe, len(learner.model.blocks)), state_of(trainer)
    tensors = checkpoint.contents(learner.model, learner.optimizer, learner.average, config.async_save)

    def write() -> None:
        checkpoint.write(
            folder,
            tensors,
            tokenizer=trainer.tokenizer,
            recipe=recipe,
            final=None if recipe is trainer.recipe else trainer.recipe,
            step=state.step,
            tokens=state.tokens,
            extra=state.extra(),
            world=trainer.world if trainer.world.sharded else None,
        )
        trainer.run.settle(best, config.keep)

    return write


def restore_from(
    start: Path, learner: Learner, recipe: Recipe, placement: Placement
) -> tuple[Learner, RunState]:
    """Load the checkpoint `start`, which has been verified, with the random generators' states.

    Args:
        start: The checkpoint folder.
        learner: The learner to fill, or to replace where the checkpoint is of another stage.
        recipe: The run's recipe.
        placement: Device, precision and processes.

    Returns:
        The learner and the run's state when the checkpoint was saved.
    """
    state = RunState.from_json(checkpoint.read_state(start))
    learner = with_depth(learner, load_recipe(start / RECIPE).model.layers, recipe, placement)
    checkpoint.load_weights(learner.model, start)
    checkpoint.load_training(learner.model, learner.optimizer, start, learner.average)
    return learner, state
