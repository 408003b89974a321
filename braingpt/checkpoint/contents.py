"""The tensors of a checkpoint, collected from model, optimizer and average."""

from typing import NamedTuple

import torch

from braingpt.checkpoint.format import RNG_CPU, RNG_CUDA, TRAINED
from braingpt.distributed.sharded_tensors import is_sharded, local_rows
from braingpt.optim.optimizer import Optimizers, pack_state
from braingpt.optim.weight_average import Average


class Contents(NamedTuple):
    """A checkpoint's tensors by name, on the CPU unless they are sharded."""

    # Parameters and buffers of the model.
    model: dict[str, torch.Tensor]
    # What training continues from; None: the checkpoint serves inference only.
    training: dict[str, torch.Tensor] | None


def contents(
    model: torch.nn.Module,
    optimizer: Optimizers | None = None,
    average: Average | None = None,
    copied: bool = False,
) -> Contents:
    """Collect the tensors of a checkpoint.

    Args:
        model: The model.
        optimizer: Its optimizers; None for a checkpoint that serves inference only.
        average: The moving average of the weights, which becomes the model of the checkpoint; the trained
            weights go to the tensors of training.
        copied: Copy tensors that lie on the CPU, so that training may change them during writing.

    Returns:
        The tensors by name.
    """
    weights = distinct(model.state_dict())
    training = None if optimizer is None else pack_state(model, optimizer) | _random_state()
    if average is not None and training is not None:
        training |= {f"{TRAINED}{name}": weights[name] for name in average.values}
    if average is not None:
        weights |= average.values
    return Contents(_on_cpu(weights, copied), None if training is None else _on_cpu(training, copied))


def distinct(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` without the second names of tied tensors."""
    seen: set[tuple[int, torch.Size]] = set()
    kept = {}
    for name, tensor in state.items():
        rows = local_rows(tensor)
        key = (rows.data_ptr(), tensor.shape)
        if rows.numel() and key in seen:
            continue
        seen.add(key)
        kept[name] = tensor
    return kept


def _random_state() -> dict[str, torch.Tensor]:
    """The states of the random generators in use."""
    states = {RNG_CPU: torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states[RNG_CUDA] = torch.cuda.get_rng_state()
    return states


def _on_cpu(tensors: dict[str, torch.Tensor], copied: bool) -> dict[str, torch.Tensor]:
    """The tensors on the CPU; with `copied` none of them shares memory with the given ones."""
    # The library writes sharded tensors at once, and moves them one by one.
    if any(map(is_sharded, tensors.values())):
        return {name: tensor.detach() for name, tensor in tensors.items()}
    moved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    live = {tensor.data_ptr() for tensor in tensors.values()} if copied else set()
    return {name: tensor.clone() if tensor.data_ptr() in live else tensor for name, tensor in moved.items()}
