"""The products of columns in plain torch: vector by vector for a few pairs, column by column for many.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D
hidden; K and F: inputs and outputs of one product.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class ColumnProducts(Protocol):
    """Products of rows sorted by column with their columns' own matrices."""

    def __init__(self, start_E1: Tensor) -> None: ...

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        ...

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        ...


class PerColumn:
    """A loop over the columns that have rows.

    A library's product of 8 rows with 64 x 512 weights takes 46 us on a CPU.
    Padding groups of similar size to one batched product gains nothing: it takes 35 us for 8 rows and 55 us
    for 16, which is what 8 on average become.
    """

    def __init__(self, start_E1: Tensor) -> None:
        self.sizes: list[int] = start_E1.diff().tolist()

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


class GroupedMM:
    """The same by torch's grouped product, which takes bfloat16."""

    def __init__(self, start_E1: Tensor) -> None:
        self.ends_E = start_E1[1:].int()

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        return F.grouped_mm(x_PK, matrix_EKF, offs=self.ends_E)

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        out_EKF.copy_(F.grouped_mm(a_PK.T, b_PF, offs=self.ends_E))


def grouped_mm_unavailable_reason() -> str | None:
    """Why torch's grouped product cannot run here, or None."""
    if not hasattr(F, "grouped_mm"):
        return f"torch {torch.__version__} lacks it"
    return None if torch.cuda.is_available() else "needs a GPU (used there for bfloat16)"


def grouped_mm_supports(x_ND: Tensor) -> bool:
    """Whether torch's grouped product takes the tensor."""
    return x_ND.is_cuda and x_ND.dtype == torch.bfloat16 and hasattr(F, "grouped_mm")


def vector_products(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor
) -> tuple[Tensor, Tensor]:
    """As `columns.columns` for a few pairs: each winner's weights are read where they are, and no others."""
    act_PW = x_ND.new_empty(winner_NA.numel(), weight_E2WD.shape[2])
    y_ND = torch.zeros_like(x_ND)
    weights = [weight_E2WD[e].to(x_ND.dtype) for e in winner_NA.flatten().tolist()]
    active = winner_NA.shape[1]
    for p, weight in enumerate(weights):
        torch.mm(x_ND[p // active, None], weight[0].T, out=act_PW[p, None])
    act_PW.relu_()
    z_PW = act_PW * act_PW * share_NA.reshape(-1, 1)
    for p, weight in enumerate(weights):
        y_1D = y_ND[p // active, None]
        torch.addmm(y_1D, z_PW[p, None], weight[1], out=y_1D)
    return y_ND, act_PW


def fused_vector_products(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor
) -> tuple[Tensor, Tensor]:
    """`vector_products` for a compiler or a GPU.

    The compiler makes two loops of it, which read the winners' weights where they are; a GPU is bound by the
    number of launches.
    """
    up_NAWD, down_NAWD = weight_E2WD[winner_NA].to(x_ND.dtype).unbind(2)
    act_NAW = F.relu((up_NAWD * x_ND[:, None, None]).sum(-1))
    z_NAW = act_NAW * act_NAW * share_NA[..., None]
    return (down_NAWD * z_NAW[..., None]).sum((1, 2)), act_NAW.flatten(0, 1)
