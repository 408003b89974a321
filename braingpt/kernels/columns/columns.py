"""The work of columns, done only where they win.

Each winner's rows are gathered, multiplied up, squared after the ReLU, weighted by the token's share,
multiplied down and summed over the winners of a token.
(Token, winner) pairs are sorted by column, so each column multiplies consecutive rows with its own two
matrices.
A column without rows is never read, forward or backward.
Every sum has a fixed order, so a run repeats bit for bit.

`reference.py` is the definition, `torch_products.py` has the products of a CPU (and of a GPU without Triton),
and `triton_ops.py` those of a GPU.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D
hidden.
`weight` (E, 2, W, D) holds a column's neurons: their input weights, then their output weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.columns.mkl_products import MKLBatch, mkl_supports, mkl_unavailable_reason
from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.columns.reference import reference
from braingpt.kernels.columns.torch_products import (
    ColumnProducts,
    GroupedMM,
    PerColumn,
    fused_vector_products,
    grouped_mm_supports,
    grouped_mm_unavailable_reason,
    vector_products,
)
from braingpt.kernels.dispatch import Backend, OptionalFunction

_TRITON_OPS = "braingpt.kernels.columns.triton_ops"
_triton_forward = OptionalFunction(_TRITON_OPS, "forward")
_triton_backward = OptionalFunction(_TRITON_OPS, "backward")
_triton_segment_sum = OptionalFunction(_TRITON_OPS, "segment_sum")
# Neurons a column that the Triton kernels are written for.
TRITON_WIDTHS = (16, 32, 64, 128)
# Pairs up to which vectors are multiplied one by one, without sorting: decoding.
FEW_PAIRS = 32
_PRODUCTS: dict[str, type[ColumnProducts]] = {
    "torch.grouped_mm": GroupedMM,
    "MKL batch": MKLBatch,
    "per column": PerColumn,
}


def columns(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor, pairs: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the winning columns, and sum their outputs over each token's winners.

    Products run in x's type and sum in float32 at least.

    Args:
        x_ND: Inputs.
        weight_E2WD: Weights of all columns.
        winner_NA: Columns that won each token.
        share_NA: What each winner's output is multiplied by.
        pairs: `Pairs.of(winner, columns)` where the caller has sorted them already.

    Returns:
        Outputs (N, D), and the rectified neurons (P, W), which have no gradient. Without gradient, the
        neurons of at most `FEW_PAIRS` pairs are in the order of the tokens, not of the columns.
    """
    share_NA = share_NA.to(x_ND.dtype)
    if dispatch.forced_by_env("columns") == "torch":
        return reference(x_ND, weight_E2WD.to(x_ND.dtype), winner_NA, share_NA)
    learning, compiling = torch.is_grad_enabled(), torch.compiler.is_compiling()
    if winner_NA.numel() <= FEW_PAIRS and not learning:
        few = fused_vector_products if compiling or x_ND.is_cuda else vector_products
        return few(x_ND, weight_E2WD, winner_NA, share_NA)
    pairs = pairs or Pairs.of(winner_NA, len(weight_E2WD))
    # Without gradient the operator is left out: its products then stay visible to torch's own counter of
    # operations.
    return (_columns if learning or compiling else _forward)(x_ND, weight_E2WD, share_NA, *pairs)


def gather_sum(y_PD: Tensor, place_NA: Tensor, weight_NA: Tensor | None = None) -> Tensor:
    """Sum the rows of each token's pairs, in a fixed order and without a copy.

    Args:
        y_PD: A row for each pair.
        place_NA: Index in P of each token's pairs.
        weight_NA: Factor of each pair; None: 1.

    Returns:
        (N, D) the sum over a of `weight[n, a] y[place[n, a]]`.
    """
    if _triton_supports(y_PD) and dispatch.select("columns", y_PD) == "triton":
        weight_P = None if weight_NA is None else weight_NA.flatten()
        return _segment_sum(y_PD, place_NA.flatten(), None, place_NA.shape[1], weight_P)
    return F.embedding_bag(place_NA, y_PD, mode="sum", per_sample_weights=weight_NA)


def gather_sum_by_column(x_ND: Tensor, token_P: Tensor, start_E1: Tensor, weight_P: Tensor) -> Tensor:
    """Sum the rows of each column's pairs, in a fixed order and without a copy.

    Args:
        x_ND: A row for each token.
        token_P: Token of each pair.
        start_E1: First pair of each column, and P at the end.
        weight_P: Factor of each pair.

    Returns:
        (E, D) the sum over each column's pairs p of `weight[p] x[token[p]]`.
    """
    if _triton_supports(x_ND) and dispatch.select("columns", x_ND) == "triton":
        return _segment_sum(x_ND, token_P, start_E1, 0, weight_P)
    return F.embedding_bag(token_P, x_ND, offsets=start_E1[:-1], mode="sum", per_sample_weights=weight_P)


def _forward(
    x_ND: Tensor,
    weight_E2WD: Tensor,
    share_NA: Tensor,
    token_P: Tensor,
    order_P: Tensor,
    place_NA: Tensor,
    start_E1: Tensor,
) -> tuple[Tensor, Tensor]:
    backend, share_P = _backend(x_ND, weight_E2WD), share_NA.flatten()[order_P]
    if backend == "triton":
        y_PD, act_PW = _triton_forward(x_ND, weight_E2WD, share_P, token_P, start_E1)
        return gather_sum(y_PD, place_NA), act_PW
    rows, (up_EWD, down_EWD) = _PRODUCTS[backend](start_E1), weight_E2WD.to(x_ND.dtype).unbind(1)
    act_PW = rows.times(x_ND.index_select(0, token_P), up_EWD.mT).relu_()
    y_PD = rows.times(act_PW * act_PW * share_P[:, None], down_EWD)
    return gather_sum(y_PD, place_NA), act_PW


def _backward(
    grad_ND: Tensor,
    x_ND: Tensor,
    weight_E2WD: Tensor,
    act_PW: Tensor,
    share_NA: Tensor,
    token_P: Tensor,
    order_P: Tensor,
    place_NA: Tensor,
    start_E1: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and share.

    The rows (P x D) are gathered again; only the neurons (P x W) are kept from the forward pass.
    """
    backend, share_P = _backend(x_ND, weight_E2WD), share_NA.flatten()[order_P]
    if backend == "triton":
        grad_x_PD, grad_weight, grad_share_P = _triton_backward(
            grad_ND, x_ND, weight_E2WD, act_PW, share_P, token_P, start_E1
        )
        return gather_sum(grad_x_PD, place_NA), grad_weight, grad_share_P[place_NA]
    rows, (up_EWD, down_EWD) = _PRODUCTS[backend](start_E1), weight_E2WD.to(x_ND.dtype).unbind(1)
    grad_PD = grad_ND.index_select(0, token_P)
    grad_z_PW = rows.times(grad_PD, down_EWD.mT)
    # Autocast would compute `square` in float32.
    square_PW = act_PW * act_PW
    grad_share_P = (grad_z_PW * square_PW).sum(-1)
    z_PW = square_PW.mul_(share_P[:, None])
    grad_act_PW = grad_z_PW.mul_(act_PW).mul_(2 * share_P[:, None])
    grad_weight = torch.empty_like(weight_E2WD, dtype=x_ND.dtype)
    rows.outer(grad_act_PW, x_ND.index_select(0, token_P), grad_weight[:, 0])
    rows.outer(z_PW, grad_PD, grad_weight[:, 1])
    grad_x_PD = rows.times(grad_act_PW, up_EWD)
    return gather_sum(grad_x_PD, place_NA), grad_weight.to(weight_E2WD.dtype), grad_share_P[place_NA]


def _backend(x_ND: Tensor, weight_E2WD: Tensor) -> str:
    """The machine's best backend for the tensors' device and type that also takes the columns' width."""
    name = dispatch.select("columns", x_ND)
    if name == "triton" and weight_E2WD.shape[2] not in TRITON_WIDTHS:
        return "torch.grouped_mm" if grouped_mm_supports(x_ND) else "per column"
    return "per column" if name == "MKL batch" and not mkl_supports(x_ND) else name


def _triton_supports(x_ND: Tensor) -> bool:
    return x_ND.is_cuda and x_ND.dtype != torch.float64


dispatch.register(
    "columns",
    Backend("triton", _triton_forward.library_unavailable_reason, _triton_supports),
    Backend("torch.grouped_mm", grouped_mm_unavailable_reason, grouped_mm_supports),
    Backend("MKL batch", mkl_unavailable_reason, mkl_supports),
    Backend("per column"),
    Backend("torch"),
)


@torch.library.custom_op("braingpt::segment_sum", mutates_args=())
def _segment_sum(
    source_RD: Tensor, index_P: Tensor, start_S1: Tensor | None, length: int, weight_P: Tensor | None
) -> Tensor:
    return _triton_segment_sum(source_RD, index_P, start_S1, length, weight_P)


@_segment_sum.register_fake
def _(source_RD, index_P, start_S1, length, weight_P):
    segments = index_P.shape[0] // length if start_S1 is None else start_S1.shape[0] - 1
    return source_RD.new_empty(segments, source_RD.shape[1])


# Operators are opaque to torch.compile, which otherwise refuses loops over counts it cannot know.
_columns = torch.library.custom_op("braingpt::columns", _forward, mutates_args=())
_columns_backward = torch.library.custom_op("braingpt::columns_backward", _backward, mutates_args=())


@_columns.register_fake
def _(x_ND, weight_E2WD, share_NA, token_P, order_P, place_NA, start_E1):
    return torch.empty_like(x_ND), x_ND.new_empty(token_P.shape[0], weight_E2WD.shape[2])


@_columns_backward.register_fake
def _(grad_ND, x_ND, weight_E2WD, act_PW, share_NA, token_P, order_P, place_NA, start_E1):
    return torch.empty_like(x_ND), torch.empty_like(weight_E2WD), share_NA.new_empty(share_NA.shape)


def _save(ctx, inputs, output) -> None:
    x_ND, weight_E2WD, *others = inputs
    ctx.save_for_backward(x_ND, weight_E2WD, output[1], *others)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, grad_ND: Tensor, _grad_act) -> tuple[Tensor | None, ...]:
    return *_columns_backward(grad_ND.contiguous(), *ctx.saved_tensors), None, None, None, None


_columns.register_autograd(_gradients, setup_context=_save)
