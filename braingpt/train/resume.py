"""Where a run starts: fresh, or from a checkpoint; and the state a checkpoint holds beside the tensors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.errors import Failure, UserError
from braingpt.optim.schedule import learning_rate
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.agreement import is_branch
from braingpt.train.batches import validation_identity
from braingpt.train.growth import stage_recipe, with_depth
from braingpt.train.learner import Learner, Placement
from braingpt.train.run.folder import RECIPE, is_run, run_of
from braingpt.train.run.lineage import Parent, Start, start_of

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
        validation: The `validation_identity` that `best` was measured with; "" in an older checkpoint.
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
    best: dict[str, Any] | None = None
    seconds: float = 0.0
    data: str = ""
    validation: str = ""
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
    if resume == "auto":
        return _newest_undamaged(out, note)
    if resume is None:
        if is_run(out):
            raise UserError(f"{out} exists; continue it with --resume auto, or choose another --out")
        return None
    chosen = listing.resolve(resume)
    if is_run(out) and run_of(chosen).resolve() != Path(out).resolve():
        raise UserError(f"{out} is another run than that of {chosen}; give a new folder with --out")
    last = listing.newest(out)
    if last and last.resolve() != chosen.resolve():
        raise UserError(
            f"{out} has continued to {last.name}; start a branch from {chosen.name} with a new --out"
        )
    checkpoint.verify(chosen)
    return chosen


def _newest_undamaged(out: Path, note: Callable[[str], None]) -> Path | None:
    """The newest undamaged checkpoint; damaged ones after it are set aside."""
    damaged = {folder: f"{folder / checkpoint.STATE} is missing" for folder in listing.incomplete(out)}
    for folder in reversed(listing.list_checkpoints(out)):
        try:
            checkpoint.verify(folder)
        except Failure as failure:
            damaged[folder] = str(failure).partition(";")[0]
            continue
        for broken, reason in damaged.items():
            if (listing.step_of(broken) or 0) > (listing.step_of(folder) or 0):
                note(f"{reason}; kept as {listing.set_aside(broken)}, continuing from {folder.name}")
        return folder
    if damaged:
        raise Failure(
            f"every checkpoint in {out} is damaged: {next(iter(damaged.values()))}; "
            "start a new run with another --out"
        )
    return None


def state_of(trainer: "Trainer") -> RunState:
    """The state of a run after its last step."""
    average = trainer.learner.average
    return RunState(
        step=trainer.step,
        tokens=trainer.tokens,
        best=trainer.validator.best,
        seconds=trainer.seconds,
        data=trainer.data_identity,
        validation=trainer.validator.identity,
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


def restore_trainer(trainer: "Trainer", start: Path) -> None:
    """Continue a run from the checkpoint `start`, which has been verified.

    Where the data differ, the guard learns anew what is usual. Where the validation differs, no earlier
    validation is compared with a later one.
    """
    trainer.learner, state = restore_from(start, trainer.learner, trainer.recipe, trainer.placement)
    trainer.step, trainer.tokens, trainer.seconds = state.step, state.tokens, state.seconds
    trainer.rewinds, trainer.loader.offset, trainer.threads = state.rewinds, state.offset, state.threads
    if state.guard is not None:
        trainer.guard.restore(state.guard)
    # Sums over micro-batches of another size would round differently.
    micro = trainer.config.micro_batch or state.micro_batch or trainer.batching.micro
    trainer.batching.micro = min(micro, trainer.batching.rows)
    trainer.saved = None if is_branch(start, trainer.run.path) else start
    same_data = state.data == trainer.data_identity
    if not same_data:
        trainer.guard.new_level()
    measured = state.validation
    if not measured and same_data:
        begun, folders = checkpoint.run_recipe(start), trainer.shards.folders
        measured = validation_identity(folders, begun, trainer.tokenizer)
    trainer.validator.continue_from(state.best, measured)


def changes(trainer: "Trainer", start: Path) -> Iterator[str]:
    """What differs from the run of the checkpoint `start`: its data, its validation, the learning rate."""
    begun, config = checkpoint.run_recipe(start), trainer.config
    state = RunState.from_json(checkpoint.read_state(start))
    if state.data != trainer.data_identity:
        before, now = (", ".join(recipe.data.folders) for recipe in (begun, trainer.recipe))
        yield f"the data differ from those the run began with ({before}); continuing with {now}"
    if state.best and trainer.validator.changed:
        yield (
            "validation losses from here on are of another text or of other windows: "
            "the best checkpoint is chosen among the new ones"
        )
    last = max(0, trainer.step - 1)
    former, present = learning_rate(last, begun.train), learning_rate(last, config)
    if abs(present - former) > 0.01 * former:
        yield (
            f"the learning rate after step {trainer.step} is {present:.2e} instead of {former:.2e}, "
            "because train.steps or a setting of the rate has changed"
        )


def parent_of(start: Path, run: Path) -> Parent | None:
    """The checkpoint that a run branches off; None where it continues itself."""
    if not is_branch(start, run):
        return None
    state = checkpoint.read_state(start)
    return Parent(checkpoint=str(start.absolute()), step=state["step"], sha256=checkpoint.weights_hash(state))


def begun_with(start: Path) -> Start:
    """What held when the checkpoint `start` was saved."""
    state = checkpoint.read_state(start)
    return start_of(checkpoint.run_recipe(start), state["step"], state.get("data", ""))
