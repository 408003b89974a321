"""Muon, an optimizer for matrices; AdamW steps all other parameters.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum,
so that every direction of a weight matrix moves alike. Its step is scaled to the size of AdamW's (Liu et al.
2025, "Muon is scalable for LLM training", section 2.2), so both share one learning rate and one weight decay.

`torch.optim.Muon` refuses stacks of matrices, which the columns are, and computes in bfloat16 everywhere,
which most CPUs emulate. That is why Muon is written here.

Shapes: N matrices, R rows, C columns.
"""

from typing import Any

import torch
from torch import Tensor

from braingpt.distributed.sharded_tensors import full_tensor, local_rows, own_rows, sharded_like

MOMENTUM = 0.95
# Coefficients of the quintic Newton-Schulz iteration, chosen to be steepest at zero.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Root mean square of an AdamW step, in units of the learning rate.
RMS = 0.2


def orthogonalised(matrix: Tensor) -> Tensor:
    """`matrix` (..., R, C) with its singular values moved near one, 0.7 to 1.2, in Newton-Schulz steps."""
    x = (matrix.bfloat16() if matrix.is_cuda else matrix).reshape(-1, *matrix.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    # Powers of the gram matrix amplify bfloat16's rounding, and products in bfloat16 are cheap anyway.
    wide = x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16
    x = _iterated_on_gram(x) if wide else _iterated(x)
    return (x.mT if tall else x).to(matrix.dtype).reshape(matrix.shape)


def _iterated(x: Tensor) -> Tensor:
    """All Newton-Schulz steps on x (N, R, C), each x <- a x + (b G + c G^2) x with the gram matrix G."""
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_on_gram(x: Tensor) -> Tensor:
    """The same for x (N, R, C) with C >= 2 R, mostly in products of R x R.

    Each step multiplies x from the left by a polynomial of its gram matrix. The polynomials commute, so their
    product is gathered first. At C = 4 R that is 25 units of work instead of 45.
    """
    gram = x @ x.mT
    gathered = factor = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        gathered = factor @ gathered
    return gathered @ x


def _polynomial(gram: Tensor) -> Tensor:
    """a I + b G + c G^2 of the gram matrix G."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


class Muon(torch.optim.Optimizer):
    """Muon over parameters that are matrices or stacks of matrices.

    A group's `parts` is how many matrices each of its parameters is, one below the other: three for a joint
    query, key and value projection.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, group["parts"])
                    decayed = local_rows(parameter).mul_(1 - group["lr"] * group["weight_decay"])
                    decayed.add_(update, alpha=-group["lr"])
                    # Caches derived from the weights must see that the weights changed.
                    torch.autograd.graph.increment_version(parameter)

    def _update(self, parameter: Tensor, parts: int) -> Tensor:
        """The orthogonalised momentum of the rows this process holds, at AdamW's size."""
        state, whole_gradient = self.state[parameter], parameter.grad
        assert whole_gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = local_rows(whole_gradient)
        momentum = local_rows(state["momentum"]).lerp_(gradient, 1 - MOMENTUM)
        # Nesterov's momentum looks one step ahead.
        update = gradient.lerp(momentum, MOMENTUM)
        # Of a stack each process holds complete matrices; a single matrix is stepped by every process.
        stacked = parameter.ndim > 2
        matrix = update if stacked else full_tensor(sharded_like(update, parameter))
        step = orthogonalised(matrix.unflatten(-2, (parts, -1)) if parts > 1 else matrix)
        step = (RMS * max(step.shape[-2:]) ** 0.5 * step).reshape_as(matrix)
        return step if stacked else own_rows(step, parameter)
