"""The Triton kernels of products with rows sorted by column; `triton_products.py` launches them.

`times`: a tile of one column's rows times a block of the column's matrix, which may be a transposed view.
`outer`: one program for each column and block of its result adds up the column's rows in their order.
No kernel uses atomics, so runs repeat bit for bit.

Legend: K and F: inputs and outputs of one product; M rows, BK of K and BF of F in one block.
Parameters are pointers, but for the constants and strides.
"""

import triton
import triton.language as tl


@triton.jit
def times(
    x, matrix, start, tile_column, tile_first, y, column_stride, k_stride, f_stride,
    K: tl.constexpr, F: tl.constexpr, M: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of rows times one block of outputs of their column's matrix."""
    column = tl.load(tile_column + tl.program_id(0))
    if column >= 0:
        row = tl.load(tile_first + tl.program_id(0)) + tl.arange(0, M)
        real = row < tl.load(start + column + 1)
        k, f = tl.arange(0, BK), tl.program_id(1) * BF + tl.arange(0, BF)
        of_column = matrix + column * column_stride
        y_MF = tl.zeros((M, BF), tl.float32)
        for first in range(0, K, BK):
            inside = first + k < K
            x_MK = tl.load(x + row[:, None] * K + first + k, mask=real[:, None] & inside, other=0.0).to(
                OPERAND
            )
            matrix_KF = tl.load(
                of_column + (first + k)[:, None] * k_stride + f * f_stride,
                mask=inside[:, None] & (f < F),
                other=0.0,
            ).to(OPERAND)
            y_MF = tl.dot(x_MK, matrix_KF, y_MF, input_precision=PRECISION)
        tl.store(y + row[:, None] * F + f, y_MF.to(y.dtype.element_ty), mask=real[:, None] & (f < F))


@triton.jit
def outer(
    a, b, start, out, column_stride, k_stride,
    K: tl.constexpr, F: tl.constexpr, M: tl.constexpr, BK: tl.constexpr, BF: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of the product of a column's rows of `a`, transposed, with its rows of `b`."""
    column = tl.program_id(0).to(tl.int64)
    k, f = tl.program_id(1) * BK + tl.arange(0, BK), tl.program_id(2) * BF + tl.arange(0, BF)
    end = tl.load(start + column + 1)
    sum_KF = tl.zeros((BK, BF), tl.float32)
    for first in range(tl.load(start + column), end, M):
        row = first + tl.arange(0, M)
        real = (row < end)[:, None]
        a_MK = tl.load(a + row[:, None] * K + k, mask=real & (k < K), other=0.0).to(OPERAND)
        b_MF = tl.load(b + row[:, None] * F + f, mask=real & (f < F), other=0.0).to(OPERAND)
        sum_KF = tl.dot(tl.trans(a_MK), b_MF, sum_KF, input_precision=PRECISION)
    at = out + column * column_stride + k[:, None] * k_stride + f
    tl.store(at, sum_KF.to(out.dtype.element_ty), mask=(k < K)[:, None] & (f < F))
