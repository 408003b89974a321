"""What the winners' drive teaches the router and the inhibition.

Losers' logits and excitation learn nothing, so the gradient is one of A numbers a token.
From these and the excitation the gradients of router and inhibition are written down.
Autograd would pass over all N x E numbers once for each operation and keep most of them.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, R interneurons, D hidden.
The inhibition (`strength`) is (E, E) or (2, E, R), as in `reference.py`.
"""

import torch
from torch import Tensor

from braingpt.kernels.columns.columns import gather_sum, gather_sum_by_column
from braingpt.kernels.columns.pairs import Pairs

# Blocks of tokens that a GPU sums products over.
TOKEN_BLOCKS = 64


class WinnersDrive(torch.autograd.Function):
    """The winners' drive (logits less inhibition), computed before; backward gives its gradients.

    These are the gradients of x, router and inhibition, summed in a fixed order.
    """

    @staticmethod
    def forward(
        ctx,
        x_ND: Tensor,
        weight_ED: Tensor,
        strength: Tensor,
        drive_NA: Tensor,
        winner_NA: Tensor,
        excited_NE: Tensor,
        pooled_NR: Tensor,
        pairs: Pairs,
    ) -> Tensor:
        ctx.save_for_backward(
            x_ND, weight_ED, strength, winner_NA, excited_NE, pooled_NR, pairs.token, pairs.order, pairs.start
        )
        return drive_NA.clone()

    @staticmethod
    def backward(ctx, grad_NA: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_ED, strength, winner_NA, excited_NE, pooled_NR, token_P, order_P, start_E1 = (
            ctx.saved_tensors
        )
        grad_NA = grad_NA.contiguous()
        grad_P = grad_NA.flatten()[order_P]
        if x_ND.dtype == weight_ED.dtype:
            grad_x = gather_sum(weight_ED, winner_NA, grad_NA)
            grad_weight = gather_sum_by_column(x_ND, token_P, start_E1, grad_P)
        else:
            grad_x, grad_weight = router_gradients(grad_NA, winner_NA, x_ND, weight_ED)
        grad_strength = inhibition_gradient(
            grad_NA, grad_P, winner_NA, excited_NE, pooled_NR, strength, token_P, order_P, start_E1
        )
        return grad_x, grad_weight, grad_strength, None, None, None, None, None


def router_gradients(
    grad_NA: Tensor, winner_NA: Tensor, x_ND: Tensor, weight_ED: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and the router's weight as dense products in x's 16 bits.

    On tensor cores these take a fifth of the time of gathering the winners' rows.
    """
    grad_NE = x_ND.new_zeros(len(x_ND), len(weight_ED)).scatter_(1, winner_NA, grad_NA.to(x_ND.dtype))
    return grad_NE @ weight_ED.to(x_ND.dtype), (grad_NE.T @ x_ND).to(weight_ED.dtype)


def inhibition_gradient(
    grad_NA: Tensor,
    grad_P: Tensor,
    winner_NA: Tensor,
    excited_NE: Tensor,
    pooled_NR: Tensor,
    strength: Tensor,
    token_P: Tensor,
    order_P: Tensor,
    start_E1: Tensor,
) -> Tensor:
    """Gradient of the inhibition, from the gradient of the winners' drive: (N, A) and by sorted pair (P,)."""
    if strength.ndim == 2:
        grad_NE = torch.zeros_like(excited_NE).scatter_(1, winner_NA, grad_NA.to(excited_NE.dtype))
        return -_over_tokens(excited_NE, grad_NE)
    to_ER, from_ER = strength
    # No column inhibits itself: this is what the sums over all columns contain too much.
    own_E1 = gather_sum_by_column(
        excited_NE.gather(1, winner_NA).to(grad_P.dtype).view(-1, 1), order_P, start_E1, grad_P
    )
    grad_pooled_NR = gather_sum(from_ER, winner_NA, grad_NA)
    grad_to = _over_tokens(excited_NE, grad_pooled_NR) - own_E1 * from_ER
    grad_from = gather_sum_by_column(pooled_NR, token_P, start_E1, grad_P) - own_E1 * to_ER
    return -torch.stack((grad_to, grad_from))


def _over_tokens(a_NE: Tensor, b_NR: Tensor) -> Tensor:
    """(E, R) a' b; a GPU sums over blocks of tokens, because one small product occupies a tenth of it."""
    blocks = TOKEN_BLOCKS if a_NE.is_cuda and len(a_NE) % TOKEN_BLOCKS == 0 else 1
    return wide_product(a_NE.unflatten(0, (blocks, -1)).mT, b_NR.unflatten(0, (blocks, -1))).sum(0)


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a b, of matrices or stacks of them, in float32 at least; b is rounded to a's type first."""
    b = b.to(a.dtype)
    if a.dtype.itemsize > 2:
        return a @ b
    if not a.is_cuda:
        return a.float() @ b.float()
    # torch offers `out_dtype` for GPUs only.
    return (torch.mm if a.ndim == 2 else torch.bmm)(a, b, out_dtype=torch.float32)
