"""Products of consecutive groups of rows, each with a matrix of its own: the work of columns, done only where they win.

Legend: P rows sorted by group, E groups, D width in, F width out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch


def reference(x_PD: Tensor, weight_EDF: Tensor, sizes_E: Tensor) -> Tensor:
    """Row p of group e times `weight[e]`, by a plain loop. Shape (P, F)."""
    groups = x_PD.split(sizes_E.tolist())
    return torch.cat([x @ weight for x, weight in zip(groups, weight_EDF, strict=True)])


class _PerGroup(torch.autograd.Function):
    """The loop over the groups that have rows, writing into one output; untouched weights are never read, forward or backward."""

    @staticmethod
    def forward(ctx, x_PD: Tensor, weight_EDF: Tensor, sizes: list[int]) -> Tensor:
        y_PF = x_PD.new_empty(x_PD.shape[0], weight_EDF.shape[2])
        for e, rows in _occupied(sizes):
            torch.mm(x_PD[rows], weight_EDF[e], out=y_PF[rows])
        ctx.save_for_backward(x_PD, weight_EDF)
        ctx.sizes = sizes
        return y_PF

    @staticmethod
    def backward(ctx, grad_PF: Tensor) -> tuple[Tensor, Tensor, None]:
        x_PD, weight_EDF = ctx.saved_tensors
        grad_PF = grad_PF.contiguous()
        grad_x, grad_weight = torch.empty_like(x_PD), torch.zeros_like(weight_EDF)
        for e, rows in _occupied(ctx.sizes):
            torch.mm(grad_PF[rows], weight_EDF[e].T, out=grad_x[rows])
            torch.mm(x_PD[rows].T, grad_PF[rows], out=grad_weight[e])
        return grad_x, grad_weight, None


def _occupied(sizes: list[int]):
    """(group, its rows) for each group that has any."""
    start = 0
    for e, size in enumerate(sizes):
        if size:
            yield e, slice(start, start + size)
        start += size


def grouped_matmul(x_PD: Tensor, weight_EDF: Tensor, sizes_E: Tensor) -> Tensor:
    """Row p of group e times `weight[e]`; `sizes` (E,) int64 says how many of the sorted rows each group has. Shape (P, F)."""
    if x_PD.is_cuda and x_PD.dtype == torch.bfloat16 and dispatch.chosen("grouped_matmul") == "torch.grouped_mm":
        return F.grouped_mm(x_PD, weight_EDF.to(x_PD.dtype), offs=sizes_E.cumsum(0).int())
    if dispatch.forced_reference():
        return reference(x_PD, weight_EDF, sizes_E)
    return _PerGroup.apply(x_PD, weight_EDF.to(x_PD.dtype), sizes_E.tolist())


def _why_no_grouped_mm() -> str | None:
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} lacks it"
    return None if torch.cuda.is_available() else "needs a GPU (used there for bfloat16)"


dispatch.register("grouped_matmul", ("torch.grouped_mm", _why_no_grouped_mm), ("per group", lambda: None), ("torch", lambda: None))
