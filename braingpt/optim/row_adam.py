"""An optimizer for tables of which a step looks up few rows: it reads and writes these rows alone.

The gradient of such a table is sparse: rows, and their numbers. AdamW would decay the moments of all rows and
move them all, which for 100M numbers adds a quarter to a small model's step. Here a row keeps
one number, the mean of its squared gradients over the steps that touched it, and moves only when it is
touched (as in the Adagrad of PyTorch-BigGraph, Lerer et al. 2019, arXiv 1903.12287). So the
state of a table is a number a row instead of two numbers a weight.

A dense gradient is possible too (several processes exchange dense ones); rows of zeros are then not touched.
Shapes are those of the gradient, so that a GPU never waits for the number of rows touched.

Legend: T rows of the table, N rows of a gradient, U rows that differ, W numbers of a row.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.distributed.sharded_tensors import local_rows


class RowAdam(torch.optim.Optimizer):
    """Steps of the rows that a gradient holds, each divided by the row's own root mean square.

    Args:
        groups: Parameter groups of tables (T, W).
        lr: Learning rate.
        beta: Decay rate of a row's mean square, for each step that touches the row.
        eps: Added to the root.
    """

    # Set by `Optimizers.step`: a scalar, 1.0 where no step is to be taken.
    found_inf: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], lr: float, beta: float, eps: float) -> None:
        # A fused optimizer reads on the device whether to step.
        super().__init__(groups, {"lr": lr, "beta": beta, "eps": eps, "fused": True})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step of every table that has a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step_rows(table, table.grad, group)

    def _step_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["row_square"] = torch.zeros_like(table[:, :1])
        if gradient.is_sparse:
            gradient = _summed(gradient)
            row_N, gradient_NW = gradient._indices()[0], gradient._values()
        else:
            gradient_NW = local_rows(gradient)
            row_N = torch.arange(len(gradient_NW), device=gradient_NW.device)
        square_T1 = local_rows(state["row_square"])
        new_N1, old_N1 = gradient_NW.square().mean(1, keepdim=True), square_T1[row_N]
        # The mean square starts with the first gradient, so that it is never too small.
        mean_N1 = torch.where(old_N1 > 0, torch.lerp(old_N1, new_N1, 1 - group["beta"]), new_N1)
        stepped_N1 = new_N1 > 0
        if self.found_inf is not None:
            stepped_N1 = stepped_N1 & (self.found_inf == 0)
        step_NW = torch.where(stepped_N1, gradient_NW / (mean_N1.sqrt() + group["eps"]), 0.0)
        # Rows that only fill a gradient's shape have number 0 and are zero: adding them leaves row 0 alone.
        local_rows(table).index_add_(0, row_N, step_NW, alpha=-group["lr"])
        square_T1.index_add_(0, row_N, torch.where(stepped_N1, mean_N1 - old_N1, 0.0))


def gradient_values(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The numbers of all gradients, with those of a row that was looked up more than once summed.

    Args:
        parameters: Any parameters; a sparse gradient is replaced by one whose rows are all different.

    Returns:
        A tensor for each gradient, to be read for the norm.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = _summed(parameter.grad)
            values.append(parameter.grad._values())
        elif parameter.grad is not None:
            values.append(parameter.grad)
    return values


def clip(parameters: Iterable[nn.Parameter], most: float, norm: Tensor) -> None:
    """Scale all gradients down, dense ones and sparse ones, so that their norm together is at most `most`.

    Args:
        parameters: Any parameters, after `gradient_values`.
        most: The largest norm.
        norm: The norm of all gradients, a scalar.
    """
    dense = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            # As torch does with dense ones.
            factor = (most / (norm + 1e-6)).clamp(max=1.0)
            parameter.grad._values().mul_(factor.to(parameter.device))
        else:
            dense.append(parameter)
    torch.nn.utils.clip_grads_with_norm_(dense, most, norm)


def _summed(gradient: Tensor) -> Tensor:
    """The sparse gradient with equal rows summed.

    On a GPU it keeps its shape, filled with rows of zeros, because nobody there knows how many rows differ.
    """
    if gradient.is_coalesced():
        return gradient
    row_N, order_N = gradient._indices()[0].sort(stable=True)
    first_N = torch.ones_like(row_N, dtype=torch.bool)
    first_N[1:] = row_N[1:] != row_N[:-1]
    place_N = first_N.cumsum(0) - 1
    values_NW = gradient._values()
    count = int(place_N[-1]) + 1 if len(row_N) and not row_N.is_cuda else len(row_N)
    sum_UW = values_NW.new_zeros(count, values_NW.shape[1]).index_add_(0, place_N, values_NW[order_N])
    row_U = row_N.new_zeros(count).scatter_(0, place_N, row_N)
    return torch.sparse_coo_tensor(
        row_U[None], sum_UW, gradient.shape, is_coalesced=True, check_invariants=False
    )
