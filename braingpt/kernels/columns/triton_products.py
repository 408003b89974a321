"""The products of `torch_products.py` by Triton kernels, for any shape, in float32 or 16 bits.

Matrices are read through their strides, so a transposed view is not copied.
Tiles and the type in which they read the matrices are those of `triton_ops.py`.

Legend: E columns, P rows sorted by column, K and F: inputs and outputs of one product.
"""

from typing import Any

import triton
from torch import Tensor

from braingpt.kernels.columns import triton_product_kernels as kernels
from braingpt.kernels.columns.triton_ops import for_tiles, precision, tiles
from braingpt.kernels.launch import launch

# Rows, inputs and outputs of a block in 16 bits. Half of the rows in float32, and half of the inputs where
# either factor is float32: an RTX 3090's 99 KB of shared memory would not hold three stages otherwise.
ROWS, INPUTS, OUTPUTS = 64, 64, 128


class TritonProducts:
    """Products of rows sorted by column with their columns' own matrices; no call waits for a count."""

    def __init__(self, start_E1: Tensor) -> None:
        self.start_E1 = start_E1

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        x_PK, pairs = x_PK.contiguous(), len(x_PK)
        matrix_EKF, extra_bytes = for_tiles(x_PK, matrix_EKF, self.start_E1, pairs)
        shape = _shape(x_PK, matrix_EKF, matrix_EKF.shape[2], len(matrix_EKF))
        column_T, first_T = tiles(self.start_E1, pairs, shape["M"])
        y_PF = x_PK.new_empty(pairs, shape["F"])
        launch(
            kernels.times,
            (len(column_T), triton.cdiv(shape["F"], shape["BF"])),
            x_PK,
            matrix_EKF,
            self.start_E1,
            column_T,
            first_T,
            y_PF,
            *matrix_EKF.stride(),
            extra_bytes=extra_bytes,
            **shape,
        )
        return y_PF

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        assert out_EKF.stride(2) == 1
        a_PK, b_PF = a_PK.contiguous(), b_PF.contiguous()
        shape = _shape(a_PK, b_PF, b_PF.shape[1], len(out_EKF))
        blocks = triton.cdiv(shape["K"], shape["BK"]), triton.cdiv(shape["F"], shape["BF"])
        launch(
            kernels.outer,
            (len(out_EKF), *blocks),
            a_PK,
            b_PF,
            self.start_E1,
            out_EKF,
            *out_EKF.stride()[:2],
            **shape,
        )


def _shape(x_PK: Tensor, other: Tensor, outputs: int, columns: int) -> dict[str, Any]:
    """What the kernels are specialised on: a tile has as many rows as a column has on average, within bounds.

    No side of a block is below 16, the least that tensor cores take.
    """
    (rows, inputs), size = x_PK.shape, x_PK.dtype.itemsize
    operand, input_precision = precision(x_PK)
    return {
        "K": inputs,
        "F": outputs,
        "M": _block(rows // columns, ROWS * 2 // max(2, size)),
        "BK": _block(inputs, INPUTS * 2 // max(2, size, other.dtype.itemsize)),
        "BF": _block(outputs, OUTPUTS),
        "OPERAND": operand,
        "PRECISION": input_precision,
        "num_warps": 4,
        "num_stages": 3,
    }


def _block(size: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(size)))
