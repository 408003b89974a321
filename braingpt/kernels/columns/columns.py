"""The work of columns, done only where they win: gather, up, squared ReLU x share, down, sum over the winners
of a token.

(Token, winner) pairs are sorted by column, so that each column multiplies consecutive rows with its own two
matrices; a column without rows is never read, forward or backward. Every sum has a fixed order, so a run
repeats bit for bit.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D
hidden. `weight` (E, 2, W, D) holds each column in one piece: its neurons' input weights, then their output
weights.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch

# pairs up to which vectors are multiplied one by one, without sorting: decoding
FEW = 32


class Pairs(NamedTuple):
    """token: (P,) whose pair it is.

    order: (P,) its place in the flattened (N, A).  place: (N, A) its row in P.  start: (E + 1,) first row.
    """

    token: Tensor
    order: Tensor
    place: Tensor
    start: Tensor

    @classmethod
    def of(cls, winner_NA: Tensor, columns: int) -> "Pairs":
        """The pairs of `winner` sorted by column, those of one column in the order of their tokens."""
        # a third of the time: fewer digits to sort by
        narrow = winner_NA.to(torch.int16) if columns < 2**15 else winner_NA
        column_P, order_P = narrow.flatten().sort(stable=True)
        place_P = torch.empty_like(order_P).scatter_(
            0, order_P, torch.arange(len(order_P), device=order_P.device)
        )
        start_E1 = torch.searchsorted(
            column_P, torch.arange(columns + 1, dtype=column_P.dtype, device=column_P.device)
        )
        return cls(order_P // winner_NA.shape[1], order_P, place_P.view_as(winner_NA), start_E1)


def reference(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor
) -> tuple[Tensor, Tensor]:
    """What `columns` computes, by a plain loop over all columns; autograd does the rest."""
    pairs = Pairs.of(winner_NA, len(weight_E2WD))
    rows = x_ND[pairs.token].split(pairs.start.diff().tolist())
    act_PW = torch.cat([F.relu(x @ weight[0].T) for x, weight in zip(rows, weight_E2WD, strict=True)])
    rows = (act_PW * act_PW * share_NA.flatten()[pairs.order, None]).split(pairs.start.diff().tolist())
    y_PD = torch.cat([z @ weight[1] for z, weight in zip(rows, weight_E2WD, strict=True)])
    return y_PD[pairs.place].sum(1), act_PW.detach()


def columns(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor, pairs: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """(N, D) sum over each token's winners of share x column(x), and (P, W) the rectified neurons, without
    gradient.

    Products run in x's dtype and sum in float32 at least. `pairs` spares sorting again what the caller has
    sorted. For at most `FEW` pairs without gradient the rows of the second result stand in the order of the
    tokens.
    """
    share_NA = share_NA.to(x_ND.dtype)
    if dispatch.forced_by_env("columns") == "torch":
        return reference(x_ND, weight_E2WD.to(x_ND.dtype), winner_NA, share_NA)
    learning, compiling = torch.is_grad_enabled(), torch.compiler.is_compiling()
    if winner_NA.numel() <= FEW and not learning:
        return (_few_fused if compiling or x_ND.is_cuda else _few)(x_ND, weight_E2WD, winner_NA, share_NA)
    pairs = pairs or Pairs.of(winner_NA, len(weight_E2WD))
    # Without gradient the operator is left out: its products then stay visible to torch's own counter of
    # operations.
    return (_columns if learning or compiling else _forward)(x_ND, weight_E2WD, share_NA, *pairs)


def summed(y_PD: Tensor, place_NA: Tensor, weight_NA: Tensor | None = None) -> Tensor:
    """(N, D) the sum over a of `y[place[n, a]]` (times `weight[n, a]`), in a fixed order and without a
    gathered copy.
    """
    if _takes_triton(y_PD) and dispatch.select("columns", y_PD) == "triton":
        return _segment_sum(
            y_PD,
            place_NA.flatten(),
            None,
            place_NA.shape[1],
            None if weight_NA is None else weight_NA.flatten(),
        )
    return F.embedding_bag(place_NA, y_PD, mode="sum", per_sample_weights=weight_NA)


def summed_by_column(x_ND: Tensor, token_P: Tensor, start_E1: Tensor, weight_P: Tensor) -> Tensor:
    """(E, D) the sum over each column's pairs p of `weight[p] x[token[p]]`, in the same way."""
    if _takes_triton(x_ND) and dispatch.select("columns", x_ND) == "triton":
        return _segment_sum(x_ND, token_P, start_E1, 0, weight_P)
    return F.embedding_bag(token_P, x_ND, offsets=start_E1[:-1], mode="sum", per_sample_weights=weight_P)


def _few(x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor) -> tuple[Tensor, Tensor]:
    """Vector products with the winners' weights where they lie: the only weights that are read."""
    act_PW = x_ND.new_empty(winner_NA.numel(), weight_E2WD.shape[2])
    y_ND = torch.zeros_like(x_ND)
    won = [weight_E2WD[e].to(x_ND.dtype) for e in winner_NA.flatten().tolist()]
    active = winner_NA.shape[1]
    for p, weight in enumerate(won):
        torch.mm(x_ND[p // active, None], weight[0].T, out=act_PW[p, None])
    act_PW.relu_()
    z_PW = act_PW * act_PW * share_NA.reshape(-1, 1)
    for p, weight in enumerate(won):
        y_1D = y_ND[p // active, None]
        torch.addmm(y_1D, z_PW[p, None], weight[1], out=y_1D)
    return y_ND, act_PW


def _few_fused(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for a compiler, which makes two loops of it that read the winners' weights where they lie, and
    for a GPU, which counts launches.
    """
    up_NAWD, down_NAWD = weight_E2WD[winner_NA].to(x_ND.dtype).unbind(2)
    act_NAW = F.relu((up_NAWD * x_ND[:, None, None]).sum(-1))
    z_NAW = act_NAW * act_NAW * share_NA[..., None]
    return (down_NAWD * z_NAW[..., None]).sum((1, 2)), act_NAW.flatten(0, 1)


def _forward(
    x_ND: Tensor,
    weight_E2WD: Tensor,
    share_NA: Tensor,
    token_P: Tensor,
    order_P: Tensor,
    place_NA: Tensor,
    start_E1: Tensor,
) -> tuple[Tensor, Tensor]:
    path, share_P = _path(x_ND, weight_E2WD), share_NA.flatten()[order_P]
    if path == "triton":
        from braingpt.kernels.columns import triton_kernels

        y_PD, act_PW = triton_kernels.forward(x_ND, weight_E2WD, share_P, token_P, start_E1)
        return summed(y_PD, place_NA), act_PW
    rows, (up_EWD, down_EWD) = _PRODUCTS[path](start_E1), weight_E2WD.to(x_ND.dtype).unbind(1)
    act_PW = rows.times(x_ND.index_select(0, token_P), up_EWD.mT).relu_()
    y_PD = rows.times(act_PW * act_PW * share_P[:, None], down_EWD)
    return summed(y_PD, place_NA), act_PW


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

    The gathered rows are gathered again rather than kept: P x D against the P x W that are.
    """
    path, share_P = _path(x_ND, weight_E2WD), share_NA.flatten()[order_P]
    if path == "triton":
        from braingpt.kernels.columns import triton_kernels

        grad_x_PD, grad_weight, grad_share_P = triton_kernels.backward(
            grad_ND, x_ND, weight_E2WD, act_PW, share_P, token_P, start_E1
        )
        return summed(grad_x_PD, place_NA), grad_weight, grad_share_P[place_NA]
    rows, (up_EWD, down_EWD) = _PRODUCTS[path](start_E1), weight_E2WD.to(x_ND.dtype).unbind(1)
    grad_PD = grad_ND.index_select(0, token_P)
    grad_z_PW = rows.times(grad_PD, down_EWD.mT)
    # `square` would be done in float32 under autocast
    square_PW = act_PW * act_PW
    grad_share_P = (grad_z_PW * square_PW).sum(-1)
    z_PW = square_PW.mul_(share_P[:, None])
    grad_act_PW = grad_z_PW.mul_(act_PW).mul_(2 * share_P[:, None])
    grad_weight = torch.empty_like(weight_E2WD, dtype=x_ND.dtype)
    rows.outer(grad_act_PW, x_ND.index_select(0, token_P), grad_weight[:, 0])
    rows.outer(z_PW, grad_PD, grad_weight[:, 1])
    grad_x_PD = rows.times(grad_act_PW, up_EWD)
    return summed(grad_x_PD, place_NA), grad_weight.to(weight_E2WD.dtype), grad_share_P[place_NA]


class _PerColumn:
    """A loop over the columns that have rows.

    On a CPU a library's product of 8 rows with 64 x 512 weights takes 46 us; padding groups of like size to
    one batched product takes 35 us for 8 rows and 55 us for 16, which is what 8 on average become: nothing is
    won by it.
    """

    def __init__(self, start_E1: Tensor) -> None:
        self.sizes = start_E1.diff().tolist()

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        y_PF = x_PK.new_empty(len(x_PK), matrix_EKF.shape[2])
        for size, x, matrix, y in zip(
            self.sizes, x_PK.split(self.sizes), matrix_EKF.unbind(0), y_PF.split(self.sizes), strict=True
        ):
            if size:
                torch.mm(x, matrix, out=y)
        return y_PF

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        for size, a, b, out in zip(
            self.sizes, a_PK.split(self.sizes), b_PF.split(self.sizes), out_EKF.unbind(0), strict=True
        ):
            if size:
                torch.mm(a.T, b, out=out)
            else:
                out.zero_()


class _GroupedMM:
    """The same by torch's grouped product, which takes bfloat16."""

    def __init__(self, start_E1: Tensor) -> None:
        self.ends_E = start_E1[1:].int()

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        return F.grouped_mm(x_PK, matrix_EKF, offs=self.ends_E)

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        out_EKF.copy_(F.grouped_mm(a_PK.T, b_PF, offs=self.ends_E))


_PRODUCTS = {"torch.grouped_mm": _GroupedMM, "per column": _PerColumn}


def _path(x_ND: Tensor, weight_E2WD: Tensor) -> str:
    """The path for these tensors: the machine's best for their device and type, unless their columns are of a
    width it has no kernel for.
    """
    name = dispatch.select("columns", x_ND)
    if name == "triton" and weight_E2WD.shape[2] not in TRITON_WIDTHS:
        return "torch.grouped_mm" if _takes_grouped_mm(x_ND) else "per column"
    return name


TRITON_WIDTHS = (16, 32, 64, 128)


def _why_no_triton() -> str | None:
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed"
    return None if torch.cuda.is_available() else "needs a GPU"


def _takes_triton(x_ND: Tensor) -> bool:
    return x_ND.is_cuda and x_ND.dtype != torch.float64


def _why_no_grouped_mm() -> str | None:
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} lacks it"
    return None if torch.cuda.is_available() else "needs a GPU (used there for bfloat16)"


def _takes_grouped_mm(x_ND: Tensor) -> bool:
    return x_ND.is_cuda and x_ND.dtype == torch.bfloat16 and hasattr(F, "grouped_mm")


dispatch.register(
    "columns",
    ("triton", _why_no_triton, _takes_triton),
    ("torch.grouped_mm", _why_no_grouped_mm, _takes_grouped_mm),
    ("per column", dispatch.anywhere),
    ("torch", dispatch.anywhere),
)


@torch.library.custom_op("braingpt::segment_sum", mutates_args=())
def _segment_sum(
    source_RD: Tensor, index_P: Tensor, start_S1: Tensor | None, length: int, weight_P: Tensor | None
) -> Tensor:
    from braingpt.kernels.columns import triton_kernels

    return triton_kernels.segment_sum(source_RD, index_P, start_S1, length, weight_P)


@_segment_sum.register_fake
def _(source_RD, index_P, start_S1, length, weight_P):
    return source_RD.new_empty(
        index_P.shape[0] // length if start_S1 is None else start_S1.shape[0] - 1, source_RD.shape[1]
    )


# Opaque to torch.compile, which so accepts loops over counts it cannot know.
_columns = torch.library.custom_op("braingpt::columns", _forward, mutates_args=())
_columns_backward = torch.library.custom_op("braingpt::columns_backward", _backward, mutates_args=())


@_columns.register_fake
def _(x_ND, weight_E2WD, share_NA, token_P, order_P, place_NA, start_E1):
    return torch.empty_like(x_ND), x_ND.new_empty(token_P.shape[0], weight_E2WD.shape[2])


@_columns_backward.register_fake
def _(grad_ND, x_ND, weight_E2WD, act_PW, share_NA, token_P, order_P, place_NA, start_E1):
    return torch.empty_like(x_ND), torch.empty_like(weight_E2WD), share_NA.new_empty(share_NA.shape)


def _keep(ctx, inputs, output) -> None:
    x_ND, weight_E2WD, *others = inputs
    ctx.save_for_backward(x_ND, weight_E2WD, output[1], *others)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, grad_ND: Tensor, _grad_act) -> tuple[Tensor | None, ...]:
    return *_columns_backward(grad_ND.contiguous(), *ctx.saved_tensors), None, None, None, None


_columns.register_autograd(_gradients, setup_context=_keep)
