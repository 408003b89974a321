"""Norm, activation and rotation with backward passes of their own, for a CPU that runs one operation at a
time.

Autograd's chains for these read and write their tensors two to four times as often as needed: half of what a
small transformer's step spends outside matrix products. One CPU core, forward and backward, 1,024 tokens:
squared ReLU of 2,560 neurons 22.1 -> 6.5 ms, norm of width 640
4.4 -> 2.9 ms, norm of ten heads of 64 channels 4.7 -> 2.2 ms. torch.compile fuses all of it and takes the
references; so does the norm on a GPU, which has a fused one, and in half precision, where it needs float32
inside.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels import dispatch

EPSILON = 1e-6
# rows at a time, where several operations follow each other on what should stay in the cache
PIECE = 128


def rms_norm(x: Tensor) -> Tensor:
    """x over its root mean square along the last dimension, without a learned scale (Zhang & Sennrich 2019)."""
    return _RMSNorm.apply(x) if is_short(x) else F.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0) squared (So et al. 2021, Primer)."""
    if _learning(x):
        return _SquaredReLU.apply(x)
    positive = F.relu(x)
    # `square` would be done in float32 under autocast, in twice the memory
    return positive * positive


def gated_norm(y_BLI: Tensor, x_BLI: Tensor, skip_I: Tensor, z_BLI: Tensor, scale_I: Tensor) -> Tensor:
    """rms_norm((y + skip x) silu(z)) scale: how Mamba-2 ends (Dao & Gu 2024, section 7).

    The short path keeps its arguments and nothing else.
    """
    if is_short(y_BLI):
        return _GatedNorm.apply(y_BLI, x_BLI, skip_I, z_BLI, scale_I)
    return rms_norm((y_BLI + skip_I * x_BLI) * F.silu(z_BLI)) * scale_I


def _learning(x: Tensor) -> bool:
    """Whether the paths below serve: they save work only where there is a backward pass."""
    return (
        not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and x.requires_grad
        and dispatch.select("pointwise") != "torch"
    )


def is_short(x: Tensor) -> bool:
    """Whether a CPU learns eagerly from x, in a precision that needs no other inside: then the short backward
    passes serve.
    """
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and _learning(x)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _over_rms(x)
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


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        y, x, skip_I, z, scale_I = given
        out = y.new_empty(y.shape)
        for *piece, normed in zip(*(_pieces(t) for t in (y, x, z, out)), strict=True):
            *_, gated, over_rms = _gated(*piece, skip_I)
            torch.mul(gated.mul_(over_rms), scale_I, out=normed)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        y, x, skip_I, z, scale_I = ctx.saved_tensors
        grads = [grad.new_empty(t.shape) for t in (y, x, z)]
        grad_skip_I, grad_scale_I = torch.zeros_like(skip_I), torch.zeros_like(scale_I)
        for y_, x_, z_, g, grad_y, grad_x, grad_z in zip(
            *(_pieces(t) for t in (y, x, z, grad, *grads)), strict=True
        ):
            both, gate, normed, over_rms = _gated(y_, x_, z_, skip_I)
            normed.mul_(over_rms)
            grad_scale_I += (g * normed).sum(0)
            of_normed = g * scale_I
            along = (of_normed * normed).mean(-1, keepdim=True)
            of_gated = of_normed.addcmul_(normed, along, value=-1).mul_(over_rms)
            torch.mul(of_gated, gate, out=grad_y)
            torch.ops.aten.silu_backward.grad_input(of_gated.mul_(both), z_, grad_input=grad_z)
            torch.mul(grad_y, skip_I, out=grad_x)
            grad_skip_I += (grad_y * x_).sum(0)
        return grads[0], grads[1], grad_skip_I, grads[2], grad_scale_I


def _pieces(x_BLI: Tensor) -> Sequence[Tensor]:
    return x_BLI.flatten(0, 1).split(PIECE)


def _gated(y: Tensor, x: Tensor, z: Tensor, skip_I: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y + skip x, silu(z), their product, and one over its root mean square."""
    both, gate = torch.addcmul(y, x, skip_I), F.silu(z)
    gated = both * gate
    return both, gate, gated, _over_rms(gated)


def _over_rms(x: Tensor) -> Tensor:
    """One over the root mean square along the last dimension."""
    return (
        torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()
    )


dispatch.register("pointwise", ("short backward", lambda: None), ("torch", lambda: None))
