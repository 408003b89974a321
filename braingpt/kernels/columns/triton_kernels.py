"""The Triton kernels of columns, over pairs sorted by column; `triton_ops.py` launches them.

`forward`: gather rows, up product, squared ReLU x share, down product in one pass; the P x W neurons never
leave the chip in between.
`backward_rows`: the same way back, from the gathered gradient to the gradient of each row.
`backward_weights`: one program for each column and slice of the hidden width adds up the column's rows in
their order.
`sum_segments`: sums of gathered rows, either a token's winners or a column's tokens; torch's embedding_bag
reached a sixth of an H100's bandwidth there.
No kernel uses atomics: sums have one order, so runs repeat bit for bit.

Legend: W neurons a column, D hidden; M rows and K hidden channels of one block.
Parameters are pointers, but for the constants.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    x, weight, share, token, start, tile_column, tile_first, y, act,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs and rectified neurons of one tile of rows."""
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
def backward_rows(
    grad, weight, act, share, token, start, tile_column, tile_first, grad_x, grad_act, grad_share,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile's rows, neurons and shares."""
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
def backward_weights(
    grad, x, act, grad_act, share, token, start, grad_weight,
    D: tl.constexpr, W: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of one column's weights in one slice of the hidden width."""
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
def sum_segments(
    source, index, start, weight, out,
    D: tl.constexpr, LENGTH: tl.constexpr, M: tl.constexpr, K: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """The (weighted) sum of the rows that one segment of `index` names, in one slice of channels."""
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
