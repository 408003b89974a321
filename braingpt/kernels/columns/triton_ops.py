"""Columns on a GPU: the products of `columns.py` by Triton kernels.

Weights are read in the type they are stored in and cast on the chip.
The exception is a column with rows for several tiles, each of which reads the weights again: there a copy in
x's type halves what is read.
Products sum in float32.
Rows are cut into tiles of one column each.
The host bounds the number of tiles (P / rows + E) and the device looks them up, so nothing waits for a count.

Legend: N tokens, E columns, P pairs sorted by column, T tiles, W neurons a column, D hidden; R rows and S
segments of a sum.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from braingpt.kernels.columns import triton_kernels as kernels
from braingpt.kernels.launch import launch, stored_bytes

# Rows a column from which the weights are copied. A copy moves 6 bytes a weight, and each tile of 128 rows
# then reads 2 fewer, out of a cache twice as fast (H100: 254 rows lose, 1,638 win).
COPY_FROM = 512
# Hidden channels of a block in 16 bits. In float32 half of them, and half the rows: an RTX 3090's 99 KB of
# shared memory would not hold 128 neurons otherwise.
SLICE = 64


def forward(
    x_ND: Tensor, weight_E2WD: Tensor, share_P: Tensor, token_P: Tensor, start_E1: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, D) share x column(x) of each pair, and (P, W) the rectified neurons."""
    (pairs,), (_, _, width, hidden) = token_P.shape, weight_E2WD.shape
    shape = _shape(x_ND, weight_E2WD, pairs)
    weight, extra_bytes = for_tiles(x_ND, weight_E2WD, start_E1, pairs)
    column_T, first_T = tiles(start_E1, pairs, shape["M"])
    y_PD, act_PW = x_ND.new_empty(pairs, hidden), x_ND.new_empty(pairs, width)
    launch(
        kernels.forward,
        (len(column_T),),
        x_ND.contiguous(),
        weight,
        share_P,
        token_P,
        start_E1,
        column_T,
        first_T,
        y_PD,
        act_PW,
        extra_bytes=extra_bytes,
        **shape | ({"num_stages": 3} if width > 64 else {}),
    )
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
    shape = _shape(x_ND, weight_E2WD, pairs)
    weight, extra_bytes = for_tiles(x_ND, weight_E2WD, start_E1, pairs)
    column_T, first_T = tiles(start_E1, pairs, shape["M"])
    grad_x_PD = x_ND.new_empty(pairs, hidden)
    grad_act_PW, grad_share_P = torch.empty_like(act_PW), torch.empty_like(share_P)
    launch(
        kernels.backward_rows,
        (len(column_T),),
        grad_ND,
        weight,
        act_PW,
        share_P,
        token_P,
        start_E1,
        column_T,
        first_T,
        grad_x_PD,
        grad_act_PW,
        grad_share_P,
        extra_bytes=extra_bytes,
        **shape,
    )
    # For the weights a tile is a column's neurons by channels, which rows add to.
    if shape["M"] > 64:
        shape |= {"M": 64, "K": 2 * SLICE, "num_warps": 8 if width > 64 else 4, "num_stages": 3}
    grad_weight = torch.empty_like(weight_E2WD)
    launch(
        kernels.backward_weights,
        (columns, triton.cdiv(hidden, shape["K"])),
        grad_ND,
        x_ND.contiguous(),
        act_PW,
        grad_act_PW,
        share_P,
        token_P,
        start_E1,
        grad_weight,
        **shape,
    )
    return grad_x_PD, grad_weight, grad_share_P


def segment_sum(
    source_RD: Tensor,
    index_P: Tensor,
    start_S1: Tensor | None,
    length: int = 0,
    weight_P: Tensor | None = None,
) -> Tensor:
    """(S, D) the sum over p of segment s of `weight[p] source[index[p]]`, added up in float32.

    Segments begin at `start`, or all have `length` rows where `start` is None.
    """
    (pairs,), (_, hidden) = index_P.shape, source_RD.shape
    segments = pairs // length if start_S1 is None else len(start_S1) - 1
    # A short segment is one block of rows and many channels. A long one is shared by programs of few channels
    # each, so that there are enough programs. The warps of a program share its channels, 16 bytes a thread:
    # where they share rows, sums go through shared memory, three times as slow on an H100.
    rows = triton.next_power_of_2(length) if length else 32
    channels = min(triton.next_power_of_2(hidden), 8192 // max(rows, 8) if length else 64)
    warps = max(1, channels * source_RD.element_size() // (256 if rows > 8 else 512)) if length else 4
    out_SD = source_RD.new_empty(segments, hidden)
    launch(
        kernels.sum_segments,
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


def for_tiles(
    x_ND: Tensor, weight_E2WD: Tensor, start_E1: Tensor, pairs: int
) -> tuple[Tensor, Callable[[], int]]:
    """The weights as tiles read them, and `launch`'s extra bytes.

    These are a copy's bytes, less those of the columns without rows, which are not read.
    """
    copies = weight_E2WD.dtype.itemsize > x_ND.dtype.itemsize and pairs >= COPY_FROM * len(weight_E2WD)
    weight = weight_E2WD.to(x_ND.dtype) if copies else weight_E2WD
    copied = stored_bytes(weight_E2WD) + stored_bytes(weight) if copies else 0
    return weight, lambda: copied - int((start_E1.diff() == 0).sum()) * stored_bytes(weight[0])


def _shape(x_ND: Tensor, weight_E2WD: Tensor, pairs: int) -> dict[str, Any]:
    """What the kernels are specialised on.

    A tile has as many rows as a column has on average, at least what tensor cores take and at most what the
    chip holds.
    """
    columns, _, width, hidden = weight_E2WD.shape
    dtype = x_ND.dtype
    max_rows = 32 if dtype.itemsize > 2 else 128 if width >= 64 and _on_hopper(x_ND) else 64
    rows = min(max_rows, max(16, triton.next_power_of_2(pairs // columns)))
    operand, input_precision = precision(x_ND)
    return {
        "D": hidden,
        "W": width,
        "M": rows,
        "K": SLICE * 2 // dtype.itemsize,
        "OPERAND": operand,
        "PRECISION": input_precision,
        "num_warps": 8 if width > 64 or rows > 64 else 4,
        "num_stages": 4 if rows > 64 else 3,
    }


def precision(x: Tensor) -> tuple[tl.dtype, str]:
    """Type of the operands of products with x, and how float32 is multiplied: TF32 where the process allows.

    Triton's interpreter multiplies the bit patterns of bfloat16 operands (triton-lang/triton#11584), so it
    gets float32 operands; loads, stores and roundings in between are still in bfloat16.
    """
    operand = tl.float32 if knobs.runtime.interpret else getattr(tl, str(x.dtype).removeprefix("torch."))
    return operand, "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _on_hopper(x_ND: Tensor) -> bool:
    """Whether the chip holds twice the tile: it has the registers and shared memory of an H100.

    Consumer cards of the same or a later generation have less.
    """
    if not x_ND.is_cuda:
        return False
    chip = torch.cuda.get_device_properties(x_ND.device)
    return chip.major >= 9 and chip.shared_memory_per_block_optin >= 160_000


def tiles(start_E1: Tensor, pairs: int, rows: int) -> tuple[Tensor, Tensor]:
    """(T,) column of each tile, -1 where the tile is not needed, and (T,) its first row."""
    needed_E = (start_E1.diff() + rows - 1) // rows
    end_E = needed_E.cumsum(0)
    tile_T = torch.arange(pairs // rows + min(len(end_E), pairs), device=start_E1.device)
    column_T = torch.searchsorted(end_E, tile_T, right=True).clamp(max=len(end_E) - 1)
    first_T = start_E1[column_T] + (tile_T - end_E[column_T] + needed_E[column_T]) * rows
    return torch.where(tile_T < end_E[-1], column_T, -1), first_T
