"""A step's gradients, from as many windows at a time as memory takes, the same number on all processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from braingpt.device.device import is_out_of_memory
from braingpt.distributed.sharded_tensors import full_tensor
from braingpt.errors import Failure
from braingpt.model.lm import LanguageModel
from braingpt.optim.row_adam import clip, gradient_values
from braingpt.train.batches import BatchLoader, MicroBatch, windows
from braingpt.train.learner import Learner, Placement
from braingpt.train.run.folder import save_micro_batch_limit

LESS_MEMORY = "use --set train.recompute=true or a smaller train.context"

# Buffers that a forward pass counts into, each with its former value.
Counters = list[tuple[Tensor, Tensor]]


@dataclass
class MicroBatching:
    """How a run splits each step into micro-batches.

    Attributes:
        loader: The run's batches.
        placement: Device, precision and processes.
        rows: Windows of a step that this process reads.
        micro: Windows of a micro-batch; halved where memory runs out.
        rehearsed: Whether all processes have had memory for a step of the present length.
        note: Prints a line.
        run: The run folder.
    """

    loader: BatchLoader
    placement: Placement
    rows: int
    micro: int
    rehearsed: bool
    note: Callable[[str], None]
    run: Path

    @classmethod
    def of(
        cls, loader: BatchLoader, placement: Placement, note: Callable[[str], None], run: Path
    ) -> "MicroBatching":
        """As the recipe asks, before any step: all rows at once where it leaves the micro-batch open."""
        config = loader.config
        rows = config.batch // placement.world.size
        micro = min(config.micro_batch or config.batch, rows)
        batching = cls(loader, placement, rows, micro, rehearsed=False, note=note, run=run)
        batching.require_rehearsal()
        return batching

    def require_rehearsal(self) -> None:
        """Rehearse the next step: its model or its sequences are larger than before."""
        world = self.placement.world
        # Alone there is nothing to agree on, and sharded weights leave no step without an exchange.
        self.rehearsed = world.size == 1 or world.sharded

    def halved(self) -> int:
        """The largest micro-batch of at most half the present size that divides the rows."""
        return next(rows for rows in range(self.micro // 2, 0, -1) if self.rows % rows == 0)


def snapshot_counters(model: LanguageModel) -> Counters:
    """The buffers a forward pass counts into, copied so that the pass can be undone.

    Masks and buffers named with a `_` are made from the weights, so a forward pass leaves them alone.
    """
    counting = (
        buffer for name, buffer in model.named_buffers() if buffer.dtype != torch.bool and "._" not in name
    )
    return [(buffer, buffer.clone()) for buffer in counting]


def restore_counters(before: Counters) -> None:
    """Undo what a forward pass counted into buffers."""
    for buffer, value in before:
        buffer.copy_(value)


def accumulate_with_oom_retry(
    learner: Learner, batching: MicroBatching, step: int, before: Counters
) -> tuple[Tensor, Tensor]:
    """Compute a step's gradients; where memory runs out, try again with micro-batches of half the size.

    A process that runs out of memory during an exchange would leave the others waiting. So several processes
    rehearse the first step of each length without an exchange, agree, and take smaller micro-batches
    together. After a rehearsal, and where weights are sharded, the run ends instead, and its next start takes
    smaller micro-batches.

    Args:
        learner: The model and its optimizer; its gradients are filled.
        batching: The micro-batch size, which is lowered here.
        step: The number of the step.
        before: `snapshot_counters` of the model before the step.

    Raises:
        Failure: Not even a single window fits, or memory ran out after the rehearsal.
    """
    world, drawn = batching.placement.world, torch.get_rng_state()
    while True:
        result = _gradients_or_none(learner, batching, step)
        if world.size == 1 or not batching.rehearsed:
            fits = all(world.all_gather(result is not None))
        elif result is None:
            raise _limit_next_start(batching, step)
        else:
            fits = True
        if fits and batching.rehearsed:
            assert result is not None
            return result
        # The former gradients go before the next try allocates its own.
        result = None
        learner.optimizer.zero_grad(set_to_none=True)
        restore_counters(before)
        torch.set_rng_state(drawn)
        if fits:
            batching.rehearsed = True
        else:
            _halve(batching, step)


def gradients(learner: Learner, batching: MicroBatching, step: int) -> tuple[Tensor, Tensor]:
    """Fill the gradients from the step's batch, one micro-batch after the other.

    A rehearsal exchanges no gradients between processes.

    Args:
        learner: The model; its gradients are filled.
        batching: The micro-batch size.
        step: The number of the step.

    Returns:
        The mean loss over the targets of all processes' rows that this process reads, in nats, and the
        gradient norm before clipping; both scalars on the run's device.
    """
    model, loader, placement = learner.model, batching.loader, batching.placement
    world, config = placement.world, loader.config
    model.train()
    if model.early is not None:
        # Processes that share weights must drop the same layers, or they would wait for each other for ever.
        rank = 0 if world.sharded else world.rank
        model.early.draws.manual_seed(hash((config.seed, step, rank)))
    total, micro_batches = (
        torch.zeros((), device=placement.device),
        loader.micro_batches(step, batching.micro),
    )
    for micro_batch in micro_batches:
        last = batching.rehearsed and micro_batch is micro_batches[-1]
        with world.accumulating(learner.wrapped, last=last):
            total += backward(learner, micro_batch, placement)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = full_tensor(torch.nn.utils.get_total_norm(gradient_values(parameters)))
    clip(parameters, config.clip, norm)
    return total, norm.to(placement.device)


def backward(learner: Learner, micro_batch: MicroBatch, placement: Placement) -> Tensor:
    """Add a micro-batch's gradients to those of the step.

    Args:
        learner: The model; its gradients are added to.
        micro_batch: The micro-batch.
        placement: Device, precision and processes.

    Returns:
        The micro-batch's part of the step's mean loss, a scalar in nats.
    """
    segments = {} if micro_batch.segments_BL is None else {"segments_BL": micro_batch.segments_BL}
    with placement.autocast():
        loss = learner.forward(micro_batch.ids_BL, micro_batch.targets_BL, **segments).loss
    # Processes average their gradients, but the fraction is of the whole step's targets.
    (loss * micro_batch.target_fraction * placement.world.size).backward()
    return loss.detach() * micro_batch.target_fraction


def _gradients_or_none(learner: Learner, batching: MicroBatching, step: int) -> tuple[Tensor, Tensor] | None:
    """The gradients, or None where memory ran out."""
    try:
        return gradients(learner, batching, step)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Returning after the `except` frees the tensors that the exception held.
    return None


def _halve(batching: MicroBatching, step: int) -> None:
    """Take smaller micro-batches from now on."""
    if batching.micro == 1:
        raise batching.placement.world.agree_on_error(_too_large(batching))
    batching.micro = batching.halved()
    if batching.placement.device.type == "cuda":
        torch.cuda.empty_cache()
    batching.note(f"out of memory in step {step + 1}: continuing with {windows(batching.micro)} at a time")


def _limit_next_start(batching: MicroBatching, step: int) -> Failure:
    """The failure that ends this process and the run, once the next start's micro-batch is on disk."""
    if batching.micro == 1:
        return _too_large(batching)
    fewer = batching.halved()
    save_micro_batch_limit(batching.run, fewer)
    return Failure(
        f"out of memory in step {step + 1} with {windows(batching.micro)} at a time; "
        f"--resume auto continues from the last checkpoint with {windows(fewer)} at a time "
        "(with torchrun --max-restarts 3 by itself)"
    )


def _too_large(batching: MicroBatching) -> Failure:
    context = batching.loader.config.context
    return Failure(f"one window of {context} tokens does not fit into memory; {LESS_MEMORY}")
