"""Norm, activation and rotation with backward passes of their own, for a CPU that runs one operation at a time.

Autograd's chains for these read and write their tensors two to four times as often as needed: half of what a small transformer's step spends
outside matrix products. One CPU core, forward and backward, 1,024 tokens: squared ReLU of 2,560 neurons 22.1 -> 6.5 ms, norm of width 640
4.4 -> 2.9 ms, norm of ten heads of 64 channels 4.7 -> 2.2 ms. torch.compile fuses all of it and takes the references; so does the norm on a GPU, which
has a fused one, and in half precision, where it needs float32 inside.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels import dispatch

EPSILON = 1e-6


def rms_norm(x: Tensor) -> Tensor:
    """x over its root mean square along the last dimension, without a learned scale (Zhang & Sennrich 2019)."""
    return _RMSNorm.apply(x) if _short(x) else F.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0) squared (So et al. 2021, Primer)."""
    if _learning(x):
        return _SquaredReLU.apply(x)
    positive = F.relu(x)
    return positive * positive  # `square` would be done in float32 under autocast, in twice the memory


def _learning(x: Tensor) -> bool:
    """Whether the paths below serve: they save work only where there is a backward pass."""
    return not torch.compiler.is_compiling() and torch.is_grad_enabled() and x.requires_grad and dispatch.chosen("pointwise") != "torch"


def _short(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and _learning(x)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        along = (grad * y).mean(-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1).mul_(scale)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


dispatch.register("pointwise", ("short backward", lambda: None), ("torch", lambda: None))
