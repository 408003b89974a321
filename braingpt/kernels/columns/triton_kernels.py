"""Columns on a GPU: Triton kernels over pairs sorted by column, as `kernels/columns/columns.py` describes
them.

`_forward`: gather rows, up product, squared ReLU x share, down product, in one pass; the P x W neurons never
    leave the chip between.
`_backward_rows`: the same way back, from the gathered gradient to that of each row.  `_backward_weights`: one
    program for each column and slice of the hidden width adds up that column's rows in their order.
    `_sum_segments`: sums of gathered rows, those of a token's winners or those of a column's tokens, where
    torch's embedding_bag reached a sixth of an H100's bandwidth. No atomics: sums have one order, so runs
    repeat bit for bit.

Weights are read in the dtype they are stored in and cast on the chip, unless a column has rows for several
tiles, each of which reads its weights again: then a copy in x's dtype halves what is read. Products sum in
float32. Rows are cut into tiles of one column each; how many there are is bounded on the host (P / rows + E)
and looked up on the device, so nothing waits for a count.

Legend: N tokens, E columns, P pairs sorted by column, T tiles, W neurons a column, D hidden; M, K: rows and
hidden channels of one block.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from braingpt.kernels.launch import held, launch

# rows a column: a copy moves 6 bytes a weight, and each tile of 128 rows then reads 2 fewer, out of a cache
# twice as fast (H100: 254 rows lose, 1,638 win)
COPY_FROM = 512
# hidden channels a block; half of it, and half the rows, in float32, or an RTX 3090's 99 KB of shared memory
# would not hold 128 neurons
SLICE = 64


def forward(
    x_ND: Tensor, weight_E2WD: Tensor, share_P: Tensor, token_P: Tensor, start_E1: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, D) share x column(x) of each pair, and (P, W) the rectified neurons."""
    (pairs,), (_, _, width, hidden) = token_P.shape, weight_E2WD.shape
    shape, (weight, beyond) = _shape(x_ND, weight_E2WD, pairs), _for_tiles(x_ND, weight_E2WD, start_E1, pairs)
    column_T, first_T = _tiles(start_E1, pairs, shape["M"])
    y_PD, act_PW = x_ND.new_empty(pairs, hidden), x_ND.new_empty(pairs, width)
    launch(
        _forward, (len(column_T),),
        x_ND.contiguous(), weight, share_P, token_P, start_E1, column_T, first_T, y_PD, act_PW,
        beyond=beyond, **shape | ({"num_stages": 3} if width > 64 else {}),
    )  # fmt: skip
    return y_PD, act_PW


def backward(
    grad_ND: Tensor,
    x_ND: Tensor,
    weight_E2WD: Tensor,
    act_PW: Tensor,
    share_P: Tensor,
    token_P: Tensor,
    start_E1: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of each pair's row (P, D), of the weights, and of the shares (P,)."""
    (pairs,), (columns, _, width, hidden) = token_P.shape, weight_E2WD.shape
    shape, (weight, beyond) = _shape(x_ND, weight_E2WD, pairs), _for_tiles(x_ND, weight_E2WD, start_E1, pairs)
    column_T, first_T = _tiles(start_E1, pairs, shape["M"])
    grad_x_PD, grad_act_PW, grad_share_P = (
        x_ND.new_empty(pairs, hidden),
        torch.empty_like(act_PW),
        torch.empty_like(share_P),
    )
    launch(
        _backward_rows, (len(column_T),), grad_ND, weight, act_PW, share_P, token_P, start_E1, column_T, first_T,
        grad_x_PD, grad_act_PW, grad_share_P, beyond=beyond, **shape,
    )  # fmt: skip
    # here a tile is a column's neurons by channels, which rows add to
    if shape["M"] > 64:
        shape |= {"M": 64, "K": 2 * SLICE, "num_warps": 8 if width > 64 else 4, "num_stages": 3}
    grad_weight = torch.empty_like(weight_E2WD)
    launch(
        _backward_weights, (columns, triton.cdiv(hidden, shape["K"])),
        grad_ND, x_ND.contiguous(), act_PW, grad_act_PW, share_P, token_P, start_E1, grad_weight, **shape,
    )  # fmt: skip
    return grad_x_PD, grad_weight, grad_share_P


def segment_sum(
    source_RD: Tensor,
    index_P: Tensor,
    start_S1: Tensor | None,
    length: int = 0,
    weight_P: Tensor | None = None,
) -> Tensor:
    """(S, D) the sum over p of segment s of `weight[p] source[index[p]]`: segments from `start`, or all of
    `length`. Sums are float32.
    """
    (pairs,), (_, hidden) = index_P.shape, source_RD.shape
    segments = pairs // length if start_S1 is None else len(start_S1) - 1
    # A short segment is one block of rows and many channels; of a long one each program takes few channels,
    # so that there are programs enough. The warps of a program share its channels, 16 bytes a thread: where
    # they share rows, sums go through shared memory, three times as slow on an H100.
    rows = triton.next_power_of_2(length) if length else 32
    channels = min(triton.next_power_of_2(hidden), 8192 // max(rows, 8) if length else 64)
    warps = max(1, channels * source_RD.element_size() // (256 if rows > 8 else 512)) if length else 4
    out_SD = source_RD.new_empty(segments, hidden)
    launch(
        _sum_segments,
        (segments, triton.cdiv(hidden, channels)),
        source_RD.contiguous(),
        index_P,
        start_S1,
        weight_P,
        out_SD,
        D=hidden,
        LENGTH=length,
        M=rows,
        K=channels,
        WEIGHTED=weight_P is not None,
        num_warps=min(8, warps),
    )
    return out_SD


def _for_tiles(
    x_ND: Tensor, weight_E2WD: Tensor, start_E1: Tensor, pairs: int
) -> tuple[Tensor, Callable[[], int]]:
    """The weights as tiles read them, and the bytes moved beyond each tensor once: a copy, less the columns
    without rows, which are not read.
    """
    copies = weight_E2WD.dtype.itemsize > x_ND.dtype.itemsize and pairs >= COPY_FROM * len(weight_E2WD)
    weight = weight_E2WD.to(x_ND.dtype) if copies else weight_E2WD
    made = held(weight_E2WD) + held(weight) if copies else 0
    return weight, lambda: made - int((start_E1.diff() == 0).sum()) * held(weight[0])


def _shape(x_ND: Tensor, weight_E2WD: Tensor, pairs: int) -> dict[str, Any]:
    """What the kernels are specialised on. TF32 only where the process asked for it; bfloat16 does not care.

    Rows a tile: as many as a column has on average, within what tensor cores take at least and the chip holds
    at most.

    Triton's interpreter multiplies the bit patterns of bfloat16 operands (triton-lang/triton#11584), so it is
    given float32 ones; loads, stores and roundings between are still bfloat16's there.
    """
    columns, _, width, hidden = weight_E2WD.shape
    dtype = x_ND.dtype
    most = 32 if dtype.itemsize > 2 else 128 if width >= 64 and _on_hopper(x_ND) else 64
    rows = min(most, max(16, triton.next_power_of_2(pairs // columns)))
    return {
        "D": hidden,
        "W": width,
        "M": rows,
        "K": SLICE * 2 // dtype.itemsize,
        "OPERAND": tl.float32
        if triton.knobs.runtime.interpret
        else getattr(tl, str(dtype).removeprefix("torch.")),
        "PRECISION": "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "num_warps": 8 if width > 64 or rows > 64 else 4,
        "num_stages": 4 if rows > 64 else 3,
    }


def _on_hopper(x_ND: Tensor) -> bool:
    """Whether the chip holds twice the tile: the registers and shared memory of an H100, which a consumer's
    card of the same or a later generation lacks.
    """
    if not x_ND.is_cuda:
        return False
    chip = torch.cuda.get_device_properties(x_ND.device)
    return chip.major >= 9 and chip.shared_memory_per_block_optin >= 160_000


def _tiles(start_E1: Tensor, pairs: int, rows: int) -> tuple[Tensor, Tensor]:
    """(T,) column and first row of each tile; -1 for tiles that are not needed."""
    needed_E = (start_E1.diff() + rows - 1) // rows
    end_E = needed_E.cumsum(0)
    tile_T = torch.arange(pairs // rows + min(len(end_E), pairs), device=start_E1.device)
    column_T = torch.searchsorted(end_E, tile_T, right=True).clamp(max=len(end_E) - 1)
    first_T = start_E1[column_T] + (tile_T - end_E[column_T] + needed_E[column_T]) * rows
    return torch.where(tile_T < end_E[-1], column_T, -1), first_T


@triton.jit
def _forward(
    x, weight, share, token, start, tile_column, tile_first, y, act,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = tl.load(tile_column + tl.program_id(0))
    if column >= 0:
        row = tl.load(tile_first + tl.program_id(0)) + tl.arange(0, M)
        real = row < tl.load(start + column + 1)
        source = tl.load(token + row, mask=real, other=0)
        neuron, channel = tl.arange(0, W), tl.arange(0, K)
        up = weight + column * (2 * W * D)
        sum_MW = tl.zeros((M, W), tl.float32)
        for d in range(0, D, K):
            inside = d + channel < D
            x_MK = tl.load(x + source[:, None] * D + d + channel, mask=real[:, None] & inside, other=0.0).to(
                OPERAND
            )
            up_WK = tl.load(up + neuron[:, None] * D + d + channel, mask=inside[None, :], other=0.0).to(
                OPERAND
            )
            sum_MW = tl.dot(x_MK, tl.trans(up_WK), sum_MW, input_precision=PRECISION)
        act_MW = tl.maximum(sum_MW, 0.0)
        tl.store(act + row[:, None] * W + neuron, act_MW.to(act.dtype.element_ty), mask=real[:, None])
        share_M = tl.load(share + row, mask=real, other=0.0).to(tl.float32)
        z_MW = (act_MW * act_MW * share_M[:, None]).to(x.dtype.element_ty).to(OPERAND)
        down = up + W * D
        for d in range(0, D, K):
            inside = d + channel < D
            down_WK = tl.load(down + neuron[:, None] * D + d + channel, mask=inside[None, :], other=0.0).to(
                OPERAND
            )
            y_MK = tl.dot(z_MW, down_WK, input_precision=PRECISION)
            tl.store(
                y + row[:, None] * D + d + channel, y_MK.to(y.dtype.element_ty), mask=real[:, None] & inside
            )


@triton.jit
def _backward_rows(
    grad, weight, act, share, token, start, tile_column, tile_first, grad_x, grad_act, grad_share,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = tl.load(tile_column + tl.program_id(0))
    if column >= 0:
        row = tl.load(tile_first + tl.program_id(0)) + tl.arange(0, M)
        real = row < tl.load(start + column + 1)
        source = tl.load(token + row, mask=real, other=0)
        neuron, channel = tl.arange(0, W), tl.arange(0, K)
        up = weight + column * (2 * W * D)
        down = up + W * D
        grad_z_MW = tl.zeros((M, W), tl.float32)
        for d in range(0, D, K):
            inside = d + channel < D
            grad_MK = tl.load(
                grad + source[:, None] * D + d + channel, mask=real[:, None] & inside, other=0.0
            ).to(OPERAND)
            down_WK = tl.load(down + neuron[:, None] * D + d + channel, mask=inside[None, :], other=0.0).to(
                OPERAND
            )
            grad_z_MW = tl.dot(grad_MK, tl.trans(down_WK), grad_z_MW, input_precision=PRECISION)
        act_MW = tl.load(act + row[:, None] * W + neuron, mask=real[:, None], other=0.0).to(tl.float32)
        share_M = tl.load(share + row, mask=real, other=0.0).to(tl.float32)
        grad_share_M = tl.sum(grad_z_MW * act_MW * act_MW, 1)
        tl.store(grad_share + row, grad_share_M.to(grad_share.dtype.element_ty), mask=real)
        grad_act_MW = (2.0 * grad_z_MW * act_MW * share_M[:, None]).to(grad_act.dtype.element_ty)
        tl.store(grad_act + row[:, None] * W + neuron, grad_act_MW, mask=real[:, None])
        for d in range(0, D, K):
            inside = d + channel < D
            up_WK = tl.load(up + neuron[:, None] * D + d + channel, mask=inside[None, :], other=0.0).to(
                OPERAND
            )
            grad_x_MK = tl.dot(grad_act_MW.to(OPERAND), up_WK, input_precision=PRECISION)
            tl.store(
                grad_x + row[:, None] * D + d + channel,
                grad_x_MK.to(grad_x.dtype.element_ty),
                mask=real[:, None] & inside,
            )


@triton.jit
def _backward_weights(
    grad, x, act, grad_act, share, token, start, grad_weight,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0).to(tl.int64)
    channel, neuron = tl.program_id(1) * K + tl.arange(0, K), tl.arange(0, W)
    inside = channel < D
    end = tl.load(start + column + 1)
    grad_up_WK = tl.zeros((W, K), tl.float32)
    grad_down_WK = tl.zeros((W, K), tl.float32)
    for first in range(tl.load(start + column), end, M):
        row = first + tl.arange(0, M)
        real = row < end
        source = tl.load(token + row, mask=real, other=0)
        x_MK = tl.load(x + source[:, None] * D + channel, mask=real[:, None] & inside, other=0.0).to(OPERAND)
        grad_MK = tl.load(grad + source[:, None] * D + channel, mask=real[:, None] & inside, other=0.0).to(
            OPERAND
        )
        act_MW = tl.load(act + row[:, None] * W + neuron, mask=real[:, None], other=0.0).to(tl.float32)
        grad_act_MW = tl.load(grad_act + row[:, None] * W + neuron, mask=real[:, None], other=0.0).to(OPERAND)
        share_M = tl.load(share + row, mask=real, other=0.0).to(tl.float32)
        z_MW = (act_MW * act_MW * share_M[:, None]).to(x.dtype.element_ty).to(OPERAND)
        grad_up_WK = tl.dot(tl.trans(grad_act_MW), x_MK, grad_up_WK, input_precision=PRECISION)
        grad_down_WK = tl.dot(tl.trans(z_MW), grad_MK, grad_down_WK, input_precision=PRECISION)
    out = grad_weight + column * (2 * W * D) + neuron[:, None] * D + channel
    tl.store(out, grad_up_WK.to(grad_weight.dtype.element_ty), mask=inside[None, :])
    tl.store(out + W * D, grad_down_WK.to(grad_weight.dtype.element_ty), mask=inside[None, :])


@triton.jit
def _sum_segments(
    source, index, start, weight, out,
    D: tl.constexpr, LENGTH: tl.constexpr, M: tl.constexpr, K: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * K + tl.arange(0, K)
    if LENGTH:
        first, end = segment * LENGTH, segment * LENGTH + LENGTH
    else:
        first, end = tl.load(start + segment), tl.load(start + segment + 1)
    sum_K = tl.zeros((K,), tl.float32)
    for begin in range(first, end, M):
        row = begin + tl.arange(0, M)
        real = row < end
        at = tl.load(index + row, mask=real, other=0)
        source_MK = tl.load(
            source + at[:, None] * D + channel, mask=real[:, None] & (channel < D), other=0.0
        ).to(tl.float32)
        if WEIGHTED:
            source_MK *= tl.load(weight + row, mask=real, other=0.0).to(tl.float32)[:, None]
        sum_K += tl.sum(source_MK, 0)
    tl.store(out + segment * D + channel, sum_K.to(out.dtype.element_ty), mask=channel < D)
