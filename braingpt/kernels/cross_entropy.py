"""Cross-entropy of a linear head without holding all logits.

For a vocabulary of 16k all logits would outweigh the rest of a small model.
The fused backend makes the logits of some tokens at a time, in one buffer, and turns them into gradients on
the spot, so the backward pass has nothing left to compute.

Legend: N tokens, C tokens of one chunk, D width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend
from braingpt.kernels.uncompiled import uncompiled

# Targets of this value count for nothing, as in torch.
IGNORED = -100


def _chunk_size(x_ND: Tensor, vocab: int) -> int:
    """Tokens whose logits exist at once.

    On a CPU so many that laying out the weight costs little beside the product, within 128 MB of logits.
    """
    return 2048 if x_ND.is_cuda else min(1024, max(256, 2**25 // vocab))


def reference(x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, reduction: str = "mean") -> Tensor:
    """`linear_cross_entropy` by its definition, with all logits at once."""
    loss_N = F.cross_entropy(
        F.linear(x_ND, weight_VD).to(_accumulation_type(x_ND)),
        target_N,
        ignore_index=IGNORED,
        reduction="none",
    )
    return loss_N if reduction == "none" else loss_N.sum() / (target_N != IGNORED).sum().clamp(min=1)


class _Fused(torch.autograd.Function):
    """Mean loss; the forward pass makes the gradients of input and weight, the backward pass scales them."""

    @staticmethod
    def forward(ctx, x_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        wide = _accumulation_type(x_ND)
        counted_N = target_N != IGNORED
        share = 1.0 / counted_N.sum().clamp(min=1).to(wide)
        # One buffer for all chunks' logits, which become probabilities and gradients in place.
        chunk = min(_chunk_size(x_ND, len(weight_VD)), max(1, len(x_ND)))
        grad_x, buffer_CV = torch.empty_like(x_ND), x_ND.new_empty(chunk, len(weight_VD))
        grad_weight = (torch.empty if wide == x_ND.dtype else torch.zeros)(
            weight_VD.shape, dtype=wide, device=x_ND.device
        )
        total = torch.zeros((), dtype=wide, device=x_ND.device)
        chunks = zip(*(t.split(chunk) for t in (x_ND, target_N, counted_N, grad_x)), strict=True)
        for i, (x, target, counted, out) in enumerate(chunks):
            label = target.masked_fill(~counted, 0)[:, None]
            grad = torch.mm(x, weight_VD.T, out=buffer_CV[: len(x)]).to(wide)
            torch.softmax(grad, -1, out=grad)
            # A probability that underflows (below 1e-38) counts as 87 nats, and its gradient is exact anyway.
            # A dot product would be shorter, but autocast would round it to bfloat16.
            total -= (grad.gather(1, label)[:, 0].clamp(min=torch.finfo(wide).tiny).log() * counted).sum()
            grad.scatter_add_(1, label, torch.full_like(label, -1, dtype=wide))
            grad = grad.to(x.dtype)
            # Each token's weight in the mean is applied where rows are short: D wide, not V.
            weight_of_C1 = (counted * share).to(x.dtype)[:, None]
            torch.mm(grad, weight_VD, out=out)
            out *= weight_of_C1
            if wide == x.dtype:
                # With beta 0 the first chunk overwrites what the memory held.
                grad_weight.addmm_(grad.T, x * weight_of_C1, beta=min(i, 1))
            else:
                grad_weight += torch.mm(grad.T, x * weight_of_C1)
        ctx.gradients = grad_x, grad_weight.to(weight_VD.dtype)
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        if ctx.gradients is None:
            raise RuntimeError(
                "the first backward pass of this loss has consumed its gradients; compute the loss again"
            )
        # Scaled in place, because the weight's gradient is as large as the head.
        (grad_x, grad_weight), ctx.gradients = ctx.gradients, None
        return grad_x.mul_(grad), grad_weight.mul_(grad), None


def _accumulation_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


# A loop of large products, which compiling would only unroll.
@uncompiled
def linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy between the logits `x @ weight.T` and the targets.

    Args:
        x_ND: Inputs of the head.
        weight_VD: The head's weight.
        target_N: Token numbers; IGNORED (-100) counts for nothing.
        reduction: "mean" over the targets that count, or "none".

    Returns:
        Nats: a scalar (0 where no target counts), or (N,) without reduction.
    """
    grad = torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad)
    if dispatch.select("cross_entropy") == "torch" or (grad and reduction == "none"):
        return reference(x_ND, weight_VD, target_N, reduction)
    if grad:
        return _Fused.apply(x_ND, weight_VD, target_N)
    chunk = _chunk_size(x_ND, len(weight_VD))
    chunks = zip(x_ND.split(chunk), target_N.split(chunk), strict=True)
    loss_N = torch.cat([reference(x, weight_VD, target, "none") for x, target in chunks])
    return loss_N if reduction == "none" else loss_N.sum() / (target_N != IGNORED).sum().clamp(min=1)


dispatch.register("cross_entropy", Backend("fused"), Backend("torch"))
