"""Who wins a token, and what the winners' logits teach the router and the inhibition: the arithmetic of
`model/columns/competition.py`.

Losers' logits and excitation learn nothing, so the gradient is one of A numbers a token. From them and the
excitation the gradients of router and inhibition are written down, where autograd would pass over all N x E
numbers once for each operation and keep most of them.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, R interneurons, D hidden.
The inhibition is (E, E), from row to column, or (2, E, R): what columns excite interneurons by, and what
these inhibit columns by.
"""

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.columns.columns import Pairs, summed, summed_by_column
from braingpt.kernels.linear import linear
from braingpt.kernels.scan.backends import on_gpu, why_not_ours

# how far a round moves the excitation: settles for columns that all others together inhibit by up to 7, where
# whole steps swing from 4 on
SETTLING = 0.7
# of the tokens, for products over them
PIECES = 64
# the most that the kernels hold in registers
TRITON_COLUMNS, TRITON_WINNERS = 4096, 32


def operand_type(x_ND: Tensor, weight_ED: Tensor) -> torch.dtype:
    """What the router multiplies in: 16 bits on a GPU under autocast, the weight's type else.

    A GPU gives the product of 16-bit numbers in float32, so that no two of thousands of columns tie for
    rounding's sake.
    """
    if x_ND.is_cuda and weight_ED.dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    return weight_ED.dtype


def logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    """(N, E) in the weight's type; the operands are rounded to x's."""
    if x_ND.dtype == weight_ED.dtype:
        return linear(x_ND, weight_ED)
    weight_ED = weight_ED.to(x_ND.dtype)
    triton = dispatch.select("competition", x_ND.new_empty(0, dtype=torch.float32)) == "triton"
    return _logits(x_ND, weight_ED) if triton else _product(x_ND, weight_ED.T)


def inhibited(excited_NE: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """(N, E) the inhibition each column receives from all others, and (N, R) the interneurons' excitation;
    (N, 0) where there are none.
    """
    if strength.ndim == 2:
        return linear(excited_NE, strength.mT), excited_NE[:, :0]
    to_ER, from_ER = strength
    pooled_NR = linear(excited_NE, to_ER.mT)
    return linear(pooled_NR, from_ER).sub_(excited_NE * (to_ER * from_ER).sum(-1)), pooled_NR


def compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    kept: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, A) winners, (N, A) their logits less their inhibition, (N, E) the settled excitation in type
    `kept`, (N, R) the interneurons'.

    Nothing has a gradient; the last two are for `WinnersDrive` and mean nothing unless `learning`. The bias
    decides with, but is in no result.
    """
    if _takes_kernel(logit_NE, active):
        winner_NA, drive_NA, excited_NE, pooled_ONR = _compete(
            logit_NE, strength, bias_E, rounds, active, kept, learning
        )
        return winner_NA, drive_NA, excited_NE, pooled_ONR[-1]
    excited_NE = torch.sigmoid(logit_NE)
    # what is inhibited inhibits less
    for _ in range(rounds - 1):
        excited_NE = excited_NE.lerp(torch.sigmoid(logit_NE - inhibited(excited_NE, strength)[0]), SETTLING)
    inhibited_NE, pooled_NR = inhibited(excited_NE, strength)
    winner_NA = (logit_NE - inhibited_NE).add_(bias_E).topk(active, dim=-1).indices
    drive_NA = logit_NE.gather(-1, winner_NA) - inhibited_NE.gather(-1, winner_NA)
    return winner_NA, drive_NA, excited_NE.to(kept), pooled_NR


class WinnersDrive(torch.autograd.Function):
    """The winners' logits less their inhibition, already known; backward gives the gradients of x, router and
    inhibition, in a fixed order.
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
            grad_x = summed(weight_ED, winner_NA, grad_NA)
            grad_weight = summed_by_column(x_ND, token_P, start_E1, grad_P)
        else:
            grad_x, grad_weight = router_gradients(grad_NA, winner_NA, x_ND, weight_ED)
        grad_strength = inhibition_gradient(
            grad_NA, grad_P, winner_NA, excited_NE, pooled_NR, strength, token_P, order_P, start_E1
        )
        return grad_x, grad_weight, grad_strength, None, None, None, None, None


def router_gradients(
    grad_NA: Tensor, winner_NA: Tensor, x_ND: Tensor, weight_ED: Tensor
) -> tuple[Tensor, Tensor]:
    """Of x and weight, as dense products in x's 16 bits: on tensor cores they take a fifth of the time of
    gathering the winners' rows.
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
    """Of what the columns inhibit each other by, given the gradient of the winners' drive, plain and sorted
    by column.
    """
    if strength.ndim == 2:
        grad_NE = torch.zeros_like(excited_NE).scatter_(1, winner_NA, grad_NA.to(excited_NE.dtype))
        return -_over_tokens(excited_NE, grad_NE)
    to_ER, from_ER = strength
    # None inhibits itself: what the sums over all columns have too much.
    own_E1 = summed_by_column(
        excited_NE.gather(1, winner_NA).to(grad_P.dtype).view(-1, 1), order_P, start_E1, grad_P
    )
    grad_pooled_NR = summed(from_ER, winner_NA, grad_NA)
    grad_to = _over_tokens(excited_NE, grad_pooled_NR) - own_E1 * from_ER
    grad_from = summed_by_column(pooled_NR, token_P, start_E1, grad_P) - own_E1 * to_ER
    return -torch.stack((grad_to, grad_from))


def _over_tokens(a_NE: Tensor, b_NR: Tensor) -> Tensor:
    """(E, R) a' b. A GPU gets it in pieces of the tokens: so few numbers as the whole gives are no work for
    more than a tenth of it.
    """
    pieces = PIECES if a_NE.is_cuda and len(a_NE) % PIECES == 0 else 1
    return _product(a_NE.unflatten(0, (pieces, -1)).mT, b_NR.unflatten(0, (pieces, -1))).sum(0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b, of matrices or stacks of them, with sums and result in float32 at least; b is rounded to a's type."""
    b = b.to(a.dtype)
    if a.dtype.itemsize > 2:
        return a @ b
    if not a.is_cuda:
        return a.float() @ b.float()
    # torch has it for GPUs only
    return (torch.mm if a.ndim == 2 else torch.bmm)(a, b, out_dtype=torch.float32)


def _takes_kernel(logit_NE: Tensor, active: int) -> bool:
    fits = logit_NE.shape[1] <= TRITON_COLUMNS and active <= TRITON_WINNERS
    return fits and dispatch.select("competition", logit_NE) == "triton"


def _for_triton(logit_NE: Tensor) -> bool:
    return on_gpu(logit_NE) and logit_NE.dtype == torch.float32


dispatch.register(
    "competition",
    ("triton", lambda: why_not_ours("braingpt.kernels.competition.triton_kernels", "compete"), _for_triton),
    ("torch", dispatch.anywhere),
)


@torch.library.custom_op("braingpt::router_logits", mutates_args=())
def _logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    from braingpt.kernels.competition import triton_kernels

    return triton_kernels.logits(x_ND, weight_ED)


@_logits.register_fake
def _(x_ND, weight_ED):
    return x_ND.new_empty(len(x_ND), len(weight_ED), dtype=torch.float32)


@torch.library.custom_op("braingpt::compete", mutates_args=())
def _compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    kept: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from braingpt.kernels.competition import triton_kernels

    return triton_kernels.compete(logit_NE, strength, bias_E, rounds, active, SETTLING, kept, learning)


@_compete.register_fake
def _(logit_NE, strength, bias_E, rounds, active, kept, learning):
    tokens, columns = logit_NE.shape
    return (
        logit_NE.new_empty(tokens, active, dtype=torch.int64),
        logit_NE.new_empty(tokens, active),
        logit_NE.new_empty(tokens, columns if learning else 0, dtype=kept),
        logit_NE.new_empty(rounds, tokens, 0 if strength.ndim == 2 else strength.shape[2]),
    )
