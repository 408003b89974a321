"""The preparations before a run's first step: plan the memory, choose the threads, and note what a person
should know.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from braingpt.device import threads
from braingpt.device.core_sharing import machine_is_shared
from braingpt.device.device import matmul_flops
from braingpt.device.free_memory import free_memory
from braingpt.distributed.sharded_tensors import local_rows
from braingpt.errors import UserError
from braingpt.model.lm import LanguageModel
from braingpt.recipes import Stage
from braingpt.train.batches import MicroBatch, training_tokens, windows
from braingpt.train.learner import Learner, Placement
from braingpt.train.micro_batches import LESS_MEMORY, backward, restore_counters, snapshot_counters
from braingpt.train.plan.plan import Plan, plan_run, shortfall
from braingpt.train.resume import begun_with, changes, parent_of
from braingpt.train.run.folder import LIMIT, run_of
from braingpt.train.run.lineage import record_start, start_of
from braingpt.train.run.progress import layers_in_words

if TYPE_CHECKING:
    from braingpt.train.loop import Trainer

# Epochs after which further ones are worth little (Muennighoff et al. 2023, figure 1).
MANY_EPOCHS = 16
# Floating-point operations of a run below which neither threads nor the device's speed are measured.
SHORT = 1e12


def plan_start(trainer: "Trainer", resumed: bool, limit: int | None) -> Plan:
    """Plan a run whose model is on its device already, and note where it may exceed the memory.

    Args:
        trainer: The run.
        resumed: Whether its micro-batch is that of a checkpoint.
        limit: Windows at a time at most, where memory ran out before.
    """
    device, loader = trainer.placement.device, trainer.loader
    resting = _resting_bytes(trainer.learner.model, device)
    plan, budget_bytes = plan_run(
        trainer.recipe,
        device,
        training_tokens(trainer.shards),
        loader.batches.epochs(trainer.config.steps),
        trainer.batching.micro if resumed else None,
        held=resting[device.type],
        processes=trainer.world.size,
        limit=limit,
    )
    if short := shortfall(plan, budget_bytes, device, resting["cpu"]):
        # The measured peak is the mean of few: what is within it is tried, what is far beyond is not.
        if plan.peak_bytes and plan.peak_bytes > (free_memory(device) + resting[device.type]):
            raise UserError(f"the run does not fit: {short}; {LESS_MEMORY}")
        trainer.reporter.note(f"it may not fit: {short}; {LESS_MEMORY}")
    return plan


def _resting_bytes(model: LanguageModel, device: torch.device) -> dict[str, int]:
    """Bytes of the model that the host ("cpu") and the device hold already."""
    resting = {"cpu": 0, device.type: 0}
    for tensor in map(local_rows, [*model.parameters(), *model.buffers()]):
        resting[tensor.device.type] += tensor.numel() * tensor.element_size()
    return resting


def make_ready(trainer: "Trainer", plan: Plan, start: Path | None) -> None:
    """Make the run folder and the loggers ready; the first process's task.

    Raises:
        UserError: A checkpoint does not fit on the disk, or a logger is not installed.
    """
    saves = -(-trainer.config.steps // trainer.config.save_every)
    trainer.run.check_space(plan.checkpoint_bytes * min(trainer.config.keep + 1, saves))
    # A logger that is not installed is reported before the folder becomes a run's.
    trainer.log.open_loggers(trainer.config.loggers, trainer.recipe)
    trainer.run.prepare(
        trainer.recipe,
        trainer.step,
        run_of(start) if start else None,
        trainer.reporter.note,
        "" if trainer.validator.changed else None,
    )
    parent = parent_of(start, trainer.run.path) if start else None
    begins = start_of(trainer.recipe, trainer.step, trainer.data_identity, parent)
    record_start(trainer.run.path, begins, begun_with(start) if start else None, trainer.reporter.note)


def settle_speed(trainer: "Trainer", plan: Plan) -> tuple[int | None, float | None]:
    """Choose the number of threads, and measure how fast the device is; only long runs measure anything.

    Returns:
        The threads the run computes with from now on, those it had before where it is resumed. None where
        the number stays open, also while other programs are busy, as they would decide the trial. And
        floating-point operations a second of matrix products, or None.
    """
    device, long = trainer.placement.device, plan.training_flops > SHORT
    count = threads.known_thread_count(device, trainer.threads)
    if count is None and long and not machine_is_shared():
        micro_batch = trainer.loader.micro_batches(trainer.step, trainer.batching.micro)[0]
        tried = _faster_threads(trainer.learner, micro_batch, trainer.placement)
        count = None if machine_is_shared() else tried
    if count:
        torch.set_num_threads(count)
    return count, matmul_flops(device, trainer.placement.dtype) if long else None


def _faster_threads(learner: Learner, micro_batch: MicroBatch, placement: Placement) -> int:
    """The number of threads, all or one, with which `micro_batch` is computed faster.

    The trial leaves no trace.
    """
    counters, drawn = snapshot_counters(learner.model), torch.get_rng_state()
    learner.model.train()
    count = threads.faster_thread_count(
        lambda: backward(learner, micro_batch, placement), torch.get_num_threads()
    )
    learner.optimizer.zero_grad(set_to_none=True)
    restore_counters(counters)
    torch.set_rng_state(drawn)
    return count


def opening_notes(trainer: "Trainer", plan: Plan, start: Path | None, limit: int | None) -> Iterator[str]:
    """What is worth a line before the first step.

    These are settings without effect, the stages of growth, where the run continues, what is slow, and what
    is missing.

    Args:
        trainer: The run.
        plan: Its plan.
        start: The checkpoint that the run continues from, or None.
        limit: Windows at a time, at most, where memory ran out before.
    """
    config, placement, skipped = trainer.config, trainer.placement, trainer.loader.batches.skipped
    yield from trainer.recipe.remarks()
    if config.growth:
        yield _stages(trainer.recipe.growth_stages)
    if start:
        yield f"continuing after step {trainer.step} ({start})"
        yield from changes(trainer, start)
    if limit:
        yield (
            f"at most {windows(limit)} at a time, as more did not fit into memory before; delete"
            f" {trainer.run.path / LIMIT} to try more"
        )
    if placement.dtype is not None and placement.device.type == "cpu":
        yield "bfloat16 is slow on most CPUs, up to hundreds of times; --set train.dtype=float32 avoids that"
    if skipped:
        yield f"languages left out, each shorter than a window: {', '.join(skipped)}"
    if line := many_epochs(plan):
        yield line
    if not trainer.validator.has_text:
        yield f"no validation: the data hold no validation text of {config.context} tokens"
    elif line := trainer.shards.unmeasured(config.context):
        yield line


def many_epochs(plan: Plan) -> str | None:
    """A line on a run that reads its data, or one language of them, so often that it learns them by heart."""
    by_language = plan.epochs_by_language or {}
    language = max(by_language, key=by_language.__getitem__, default=None)
    total = plan.epochs or 0
    most = max(total, by_language[language] if language else 0)
    if most <= MANY_EPOCHS:
        return None
    what = "the data" if total > MANY_EPOCHS or language is None else f"the texts in '{language}'"
    steps = max(1, int(plan.steps * MANY_EPOCHS / most))
    fewer = f"train.steps={steps} reads {what} {MANY_EPOCHS} times"
    return (
        f"the run reads {what} {most:,.0f} times; after some {MANY_EPOCHS} times a model mostly learns them "
        f"by heart: prepare more text, or --set {fewer}"
    )


def _stages(stages: Sequence[Stage]) -> str:
    """`grows: 1 layer at first, 2 after step 67, 6 after step 467`"""
    first, *later = stages
    words = [
        f"{layers_in_words(first.layers)} at first",
        *(f"{stage.layers} after step {stage.begin}" for stage in later),
    ]
    return f"grows: {', '.join(words)}"
