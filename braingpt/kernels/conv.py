"""Short causal depthwise convolution as a sum of shifted products.

On a CPU the sum is several times faster than torch's depthwise conv1d.

Legend: B batch, L tokens, E channels, K taps, T tokens of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels.pointwise import BLOCK_ROWS, uses_short_backward


def causal_conv(
    x_BLE: Tensor, weight_EK: Tensor, past_BKE: Tensor | None = None, run_BL: Tensor | None = None
) -> Tensor:
    """Convolve each channel: y_t = sum over k of weight[:, K-1-k] x_{t-k}.

    Args:
        x_BLE: Inputs.
        weight_EK: Taps of each channel, the newest token's last.
        past_BKE: The K-1 inputs before x; None: zeros.
        run_BL: Number of each token's document; taps do not reach into another document.

    Returns:
        Outputs (B, L, E).
    """
    taps, length = weight_EK.shape[1], x_BLE.shape[1]
    if past_BKE is None:
        past_BKE = x_BLE.new_zeros(x_BLE.shape[0], taps - 1, x_BLE.shape[2])
    window = torch.cat([past_BKE, x_BLE], 1)
    # A step of generation takes fewer, smaller operations this way.
    if length == 1:
        return (window * weight_EK.T).sum(1, keepdim=True)
    y_BLE = x_BLE * weight_EK[:, -1]
    for k in range(1, taps):
        tap = window[:, taps - 1 - k : taps - 1 - k + length] * weight_EK[:, taps - 1 - k]
        if run_BL is not None and length > k:
            before_x = torch.ones_like(run_BL[:, :k], dtype=torch.bool)
            same_document_BL = torch.cat([before_x, run_BL[:, k:] == run_BL[:, :-k]], 1)
            tap = tap * same_document_BL[..., None]
        y_BLE = y_BLE + tap
    return y_BLE


def join_past(past_BKE: Tensor, x_BLE: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """Let the past end where each row's inputs begin, instead of before the padding at its left.

    Args:
        past_BKE: The K-1 inputs before x.
        x_BLE: Inputs.
        valid_BL: False at padding; None: there is none.

    Returns:
        The past and the inputs, in which the last places of padding hold the past.
    """
    if valid_BL is None:
        return past_BKE, x_BLE
    taps = past_BKE.shape[1]
    places_BK = valid_BL.int().argmax(1, keepdim=True) + torch.arange(taps, device=x_BLE.device)
    window = torch.cat([past_BKE, x_BLE], 1)
    window = window.scatter(1, places_BK[..., None].expand_as(past_BKE), past_BKE)
    return window[:, :taps], window[:, taps:]


def next_past(past_BKE: Tensor, x_BLE: Tensor, valid_BL: Tensor | None) -> Tensor:
    """The `past` of the next call.

    Args:
        past_BKE: The `past` of this call.
        x_BLE: The inputs of this call. Padding may be on the left (as zeros) or on the right.
        valid_BL: False at padding; None: there is none.

    Returns:
        The last K-1 real inputs of each row, those of this call's `past` included.
    """
    taps = past_BKE.shape[1]
    window = torch.cat([past_BKE, x_BLE], 1)
    if valid_BL is None:
        return window[:, window.shape[1] - taps :]
    places = torch.arange(1, x_BLE.shape[1] + 1, device=x_BLE.device)
    # One after the last real input.
    end_B = (valid_BL * places).amax(1)
    index = end_B[:, None] + torch.arange(taps, device=x_BLE.device)
    return window.gather(1, index[..., None].expand(-1, -1, x_BLE.shape[2]))


def silu_conv(
    x_BLE: Tensor, weight_EK: Tensor, past_BKE: Tensor | None = None, run_BL: Tensor | None = None
) -> Tensor:
    """SiLU of `causal_conv`.

    In training on a CPU it keeps nothing but x, and passes through memory once in each direction.

    Args:
        x_BLE, weight_EK, past_BKE, run_BL: As in `causal_conv`.

    Returns:
        Outputs (B, L, E).
    """
    if past_BKE is None and run_BL is None and uses_short_backward(x_BLE):
        return _SiluConv.apply(x_BLE, weight_EK)
    return F.silu(causal_conv(x_BLE, weight_EK, past_BKE, run_BL))


class _SiluConv(torch.autograd.Function):
    """In blocks of a row that stay in the cache; the backward pass convolves again."""

    @staticmethod
    def forward(ctx: Any, x_BLE: Tensor, weight_EK: Tensor) -> Tensor:
        ctx.save_for_backward(x_BLE, weight_EK)
        y_BLE, weight_KE = x_BLE.new_empty(x_BLE.shape), weight_EK.T.contiguous()
        for x_LE, y_LE in zip(x_BLE, y_BLE, strict=True):
            for start, end in _blocks(len(x_LE)):
                torch.ops.aten.silu.out(_convolved(x_LE, weight_KE, start, end), out=y_LE[start:end])
        return y_BLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BLE: Tensor) -> tuple[Tensor, Tensor]:
        x_BLE, weight_EK = ctx.saved_tensors
        weight_KE, taps = weight_EK.T.contiguous(), weight_EK.shape[1]
        grad_x, grad_weight_KE = grad_BLE.new_empty(x_BLE.shape), torch.zeros_like(weight_KE)
        for x_LE, grad_LE, grad_x_LE in zip(x_BLE, grad_BLE, grad_x, strict=True):
            # In order, because gradients reach back to tokens before the block.
            for start, end in _blocks(len(x_LE)):
                grad_TE = torch.ops.aten.silu_backward(
                    grad_LE[start:end], _convolved(x_LE, weight_KE, start, end)
                )
                torch.mul(grad_TE, weight_KE[-1], out=grad_x_LE[start:end])
                grad_weight_KE[-1] += (grad_TE * x_LE[start:end]).sum(0)
                for k in range(1, taps):
                    # The first token whose tap lies within the row.
                    first = max(start, k)
                    if first < end:
                        reaching = grad_TE[first - start :]
                        read = slice(first - k, end - k)
                        grad_weight_KE[-1 - k] += (reaching * x_LE[read]).sum(0)
                        grad_x_LE[read].addcmul_(reaching, weight_KE[-1 - k])
        return grad_x, grad_weight_KE.T


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK_ROWS, length)) for start in range(0, length, BLOCK_ROWS))


def _convolved(x_LE: Tensor, weight_KE: Tensor, start: int, end: int) -> Tensor:
    """(T, E) the convolution at some tokens of a row with nothing before it."""
    y_TE = x_LE[start:end] * weight_KE[-1]
    for k in range(1, len(weight_KE)):
        first = max(start, k)
        if first < end:
            y_TE[first - start :].addcmul_(x_LE[first - k : end - k], weight_KE[-1 - k])
    return y_TE
