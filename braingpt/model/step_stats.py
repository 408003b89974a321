"""How much of the model a training step computed, from counts that the layers keep for their controllers.

It takes a few small operations and does not wait for the device.
"""

import torch
from torch import Tensor

from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.columns.competition import Competition
from braingpt.model.lm import LanguageModel
from braingpt.model.mixers.selective_attention import SelectiveAttention


@torch.no_grad()
def step_stats(model: LanguageModel) -> dict[str, Tensor]:
    """Statistics of the last step, taken before `after_step` clears its counts.

    Args:
        model: A model in training.

    Returns:
        Scalars on the model's device, each where the model has such a part. Shares in 0..1 as in
        `train.validation.inside`: tokens `attended`, `columns` computed, layers passed (`depth`);
        `imbalance`, the load of the busiest column over the mean load; and `active`, the share of all
        parameters that a token was multiplied with.
    """
    stats: dict[str, Tensor] = {}
    arrived = _arrived(model)
    mixers = [block.mixer for block in model.blocks]
    if counts := [mixer.selector.counted for mixer in mixers if isinstance(mixer, SelectiveAttention)]:
        chosen, tokens = torch.stack(counts).sum(0)
        stats["attended"] = chosen / tokens
    mlps = [block.mlp for block in model.blocks]
    if shares := [_columns(mlp) for mlp in mlps if isinstance(mlp, SparseColumns | SilencedColumns)]:
        stats["columns"] = (arrived * arrived.new_tensor(shares)).mean()
        loads_KE = torch.stack([module.load for module in model.modules() if isinstance(module, Competition)])
        # A layer that no token reached has no load: its ratio is not a number.
        stats["imbalance"] = (loads_KE.amax(1) / loads_KE.mean(1)).nanmean()
    if model.exits:
        stats["depth"] = arrived.mean()
    used = (arrived * arrived.new_tensor([block.parameters_active() for block in model.blocks])).sum()
    whole = model.embedding.parameters_active()
    if model.lexical is not None:
        whole += model.lexical.parameters_active()
    stats["active"] = (whole + used) / model.parameters_total()
    return stats


def _arrived(model: LanguageModel) -> Tensor:
    """(layers,) the share of the tokens that reached each block."""
    share, shares = torch.ones((), device=model.device), []
    for nth, (begin, end) in enumerate(model.spans):
        if nth:
            chosen, tokens = model.exits[nth - 1].selector.counted
            share = share * torch.nan_to_num(chosen / tokens)
        shares += [share] * (end - begin)
    return torch.stack(shares)


def _columns(mlp: SparseColumns | SilencedColumns) -> float:
    """The share of a layer's columns that run for a token."""
    columns, shared = mlp.columns, getattr(mlp.columns, "shared", 0)
    return (columns.active + shared) / (columns.count + shared)
