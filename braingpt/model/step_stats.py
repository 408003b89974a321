"""What a step left out, from the counts its layers keep for their controllers anyway: a few small operations,
and no wait for the device.
"""

import torch
from torch import Tensor

from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.columns.competition import Competition
from braingpt.model.lm import LanguageModel
from braingpt.model.mixers.selective_attention import SelectiveAttention


@torch.no_grad()
def step_stats(model: LanguageModel) -> dict[str, Tensor]:
    """Scalars on the model's device, each where the model has something of the kind, of the step whose counts
    `after_step` has not cleared.

    Shares in 0..1 as in `train.validation.inside`: tokens `attended`, `columns` computed, `depth` gone
    through; `imbalance`, the load of the busiest column over the mean one; and `active`, the share of all
    parameters that a token was multiplied with.
    """
    found: dict[str, Tensor] = {}
    arrived = _arrived(model)
    if any(isinstance(block.mixer, SelectiveAttention) for block in model.blocks):
        counts = torch.stack(
            [
                block.mixer.selector.counted
                for block in model.blocks
                if isinstance(block.mixer, SelectiveAttention)
            ]
        ).sum(0)
        found["attended"] = counts[0] / counts[1]
    if shares := [
        _columns(block.mlp)
        for block in model.blocks
        if isinstance(block.mlp, SparseColumns | SilencedColumns)
    ]:
        found["columns"] = (arrived * arrived.new_tensor(shares)).mean()
        loads_KE = torch.stack([module.load for module in model.modules() if isinstance(module, Competition)])
        # a layer that no token came to has none
        found["imbalance"] = (loads_KE.amax(1) / loads_KE.mean(1)).nanmean()
    if model.exits:
        found["depth"] = arrived.mean()
    used = (arrived * arrived.new_tensor([block.parameters_active() for block in model.blocks])).sum()
    found["active"] = (model.embedding.weight.numel() + used) / model.parameters_total()
    return found


def _arrived(model: LanguageModel) -> Tensor:
    """(layers,) the share of the tokens that came to each block."""
    share, shares = torch.ones((), device=model.device), []
    for nth, (begin, end) in enumerate(model._spans):
        if nth:
            going = model.exits[nth - 1].selector.counted
            share = share * torch.nan_to_num(going[0] / going[1])
        shares += [share] * (end - begin)
    return torch.stack(shares)


def _columns(mlp: SparseColumns | SilencedColumns) -> float:
    """The share of its columns that a token wakes."""
    columns, shared = mlp.columns, getattr(mlp.columns, "shared", 0)
    return (columns.active + shared) / (columns.count + shared)
