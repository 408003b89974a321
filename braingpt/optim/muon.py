"""Muon, an optimizer for matrices; it takes AdamW beside it for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum,
so that every direction of a weight matrix moves alike. Its step is scaled to the size AdamW's would have (Liu
et al. 2025, "Muon is scalable for LLM training", section
2.2), so both share one learning rate and one weight decay. torch.optim.Muon refuses stacks of matrices, which
the columns are, and computes in bfloat16 everywhere, which most CPUs emulate; that is why the twenty lines of
it stand here.
"""

import torch
from torch import Tensor

from braingpt.distributed.sharded_tensors import full_tensor, local_rows, own_rows, sharded_like

MOMENTUM = 0.95
# of the quintic iteration, steepest at zero
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# root mean square of an AdamW step, in units of the learning rate
RMS = 0.2


def orthogonalised(matrix: Tensor) -> Tensor:
    """`matrix` (..., R, C) with all its singular values moved near one (0.7 to 1.2): five Newton-Schulz
    steps.
    """
    x = (matrix.bfloat16() if matrix.is_cuda else matrix).reshape(-1, *matrix.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    # Rounding in bfloat16 grows in powers of the gram matrix; products of half precision are cheap where they
    # exist.
    small = x.shape[-1] >= 2 * x.shape[-2] and x.dtype != torch.bfloat16
    x = _iterated_on_gram(x) if small else _iterated(x)
    return (x.mT if tall else x).to(matrix.dtype).reshape(matrix.shape)


def _iterated(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_on_gram(x: Tensor) -> Tensor:
    """The same for x (N, R, C) with C >= 2 R, mostly in products of R x R: each step multiplies x from the
    left by a polynomial of its gram matrix, which commutes with it, so that the factors can be gathered.
    At C = 4 R that is 25 units of work in place of 45.
    """
    a, b, c = COEFFICIENTS
    gram, factor, gathered = x @ x.mT, None, None
    for _ in range(ITERATIONS):
        gram = gram if factor is None else factor @ gram @ factor
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        gathered = factor if gathered is None else factor @ gathered
    return gathered @ x


class Muon(torch.optim.Optimizer):
    """Muon over parameters that are matrices or stacks of matrices.

    A group's `parts` is how many matrices each parameter is, one under the other: three for a joint query,
    key and value projection.
    """

    def __init__(self, groups: list[dict], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self) -> None:
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._direction(parameter, group["parts"])
                    local_rows(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(
                        update, alpha=-group["lr"]
                    )
                    torch.autograd.graph.increment_version(parameter)

    def _direction(self, parameter: Tensor, parts: int) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = local_rows(parameter.grad)
        momentum = local_rows(state["momentum"]).lerp_(gradient, 1 - MOMENTUM)
        # Nesterov
        update = gradient.lerp(momentum, MOMENTUM)
        # a part of a stack holds whole matrices; of a single one each process takes the whole step
        stacked = parameter.ndim > 2
        matrix = update if stacked else full_tensor(sharded_like(update, parameter))
        step = orthogonalised(matrix.unflatten(-2, (parts, -1)) if parts > 1 else matrix)
        step = (RMS * max(step.shape[-2:]) ** 0.5 * step).reshape_as(matrix)
        return step if stacked else own_rows(step, parameter)
