"""A step's gradients: from as many windows at a time as the memory takes, on all processes alike."""

from typing import Any

import torch
from torch import Tensor

from braingpt.device.device import autocast, is_out_of_memory
from braingpt.distributed.sharded_tensors import full_tensor
from braingpt.errors import Failure
from braingpt.train.run.folder import limit_pieces
from braingpt.train.run.progress import windows

SMALLER = "--set train.recompute=true or a smaller train.context takes less"

# buffers that a forward pass counts into, and what they held before
Counted = list[tuple[Tensor, Tensor]]


def snapshot_counters(model: torch.nn.Module) -> Counted:
    """To undo a forward pass by.

    Masks, and what is named with a `_`, are made of weights: a forward pass does not change them.
    """
    counting = (
        buffer for name, buffer in model.named_buffers() if buffer.dtype != torch.bool and "._" not in name
    )
    return [(buffer, buffer.clone()) for buffer in counting]


def restore_counters(before: Counted) -> None:
    """Undo what a forward pass counted into buffers."""
    for buffer, value in before:
        buffer.copy_(value)


def gradients(trainer: Any) -> tuple[Tensor, Tensor]:
    """Fill the gradients from the step's batch, piece by piece; (mean loss, norm before clipping).

    A rehearsal exchanges none of them.
    """
    trainer.model.train()
    if trainer.model.early is not None:
        # who shares weights calls the same blocks, or waits for the others for ever
        alike = trainer.world.sharded
        trainer.model.early.draws.manual_seed(
            hash((trainer.config.seed, trainer.step, 0 if alike else trainer.world.rank))
        )
    total, pieces = (
        torch.zeros((), device=trainer.device),
        trainer.feed.micro_batches(trainer.step, trainer.micro),
    )
    for piece in pieces:
        with trainer.world.accumulating(trainer.forward, last=trainer.rehearsed and piece is pieces[-1]):
            total += backward(trainer, piece)
    parameters = [parameter for parameter in trainer.model.parameters() if parameter.grad is not None]
    norm = full_tensor(torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters]))
    torch.nn.utils.clip_grads_with_norm_(parameters, trainer.config.clip, norm)
    return total, norm.to(trainer.device)


def backward(trainer: Any, piece: Any) -> Tensor:
    """Add one piece's gradients; its part of the step's mean loss."""
    where = {} if piece.segments_BL is None else {"segments_BL": piece.segments_BL}
    with autocast(trainer.device, trainer.dtype, cached=not trainer.world.sharded):
        loss = trainer.forward(piece.ids_BL, piece.targets_BL, **where).loss
    # gradients are averaged, shares are of the whole step
    (loss * piece.target_fraction * trainer.world.size).backward()
    return loss.detach() * piece.target_fraction


def accumulate_with_oom_retry(trainer: Any, before: Counted) -> tuple[Tensor, Tensor]:
    """`gradients`, taken again in pieces of half the size where memory does not suffice.

    Raises Failure where no piece is small enough.

    Who runs out of memory amid an exchange leaves the others waiting. So several processes rehearse the first
    step of each length without one, agree, and take smaller pieces together. Later, and where weights are
    spread, the run ends, and its next start takes smaller pieces.
    """
    drawn = torch.get_rng_state()
    while True:
        found = _gradients_or_none(trainer)
        if trainer.world.size == 1 or not trainer.rehearsed:
            fits = all(trainer.world.all_gather(found is not None))
        elif found is None:
            raise _next_time(trainer)
        else:
            fits = True
        if fits and trainer.rehearsed:
            return found
        found = None
        trainer.optimizer.zero_grad(set_to_none=True)
        restore_counters(before)
        torch.set_rng_state(drawn)
        if fits:
            trainer.rehearsed = True
        else:
            _halve(trainer)


def _gradients_or_none(trainer: Any) -> tuple[Tensor, Tensor] | None:
    try:
        return gradients(trainer)
    except RuntimeError as error:
        # what an exception holds is freed only behind its `except`
        if not is_out_of_memory(error):
            raise
    return None


def _halve(trainer: Any) -> None:
    if trainer.micro == 1:
        raise trainer.world.agree_on_error(_too_much(trainer))
    trainer.micro = _smaller(trainer)
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    trainer.reporter.note(
        f"out of memory in step {trainer.step + 1}: going on with {windows(trainer.micro)} at a time"
    )


def _next_time(trainer: Any) -> Failure:
    """How this process ends, and the run with it, having written down what the next start may take."""
    if trainer.micro == 1:
        return _too_much(trainer)
    fewer = _smaller(trainer)
    limit_pieces(trainer.run.path, fewer)
    again = f"{windows(fewer)} at a time from the last checkpoint on: --resume auto, or torchrun --max-restarts 3 with it"
    return Failure(
        f"out of memory in step {trainer.step + 1} with {windows(trainer.micro)} at a time; the next start takes {again}"
    )


def _smaller(trainer: Any) -> int:
    return next(rows for rows in range(trainer.micro // 2, 0, -1) if trainer.rows % rows == 0)


def _too_much(trainer: Any) -> Failure:
    return Failure(f"one window of {trainer.config.context} tokens does not fit into memory; {SMALLER}")
