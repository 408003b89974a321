"""2:4 structured weights: of every four weights along the input, the two largest stay (Zhou et al. 2021, SR-STE).

Ampere and later GPUs multiply such matrices in compressed form; everywhere else they are ordinary matrices with half their entries zero.
"""

import torch
from torch import Tensor


def two_four_mask(weight_OI: Tensor) -> Tensor:
    """True for the two largest magnitudes of each group of four along the last dimension (a multiple of 4)."""
    groups = weight_OI.detach().abs().unflatten(-1, (-1, 4))
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(2, dim=-1).indices, True)
    return mask.flatten(-2)


class _StraightThrough(torch.autograd.Function):
    """Forward: masked weight. Backward: the gradient reaches every weight, and pruned ones decay toward zero (SR-STE, eq. 9)."""

    @staticmethod
    def forward(ctx, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return grad + ctx.decay * (weight * ~mask), None, None


def masked_weight(weight_OI: Tensor, mask_OI: Tensor, decay: float = 2e-4) -> Tensor:
    """The weight with its pruned entries zero; differentiable straight through to all entries."""
    return _StraightThrough.apply(weight_OI, mask_OI, decay)
