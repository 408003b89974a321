"""The products of columns on a CPU by MKL's batched product, which shares the columns between all threads.

A product of few rows is too small for two threads: a loop over columns takes the same time with two threads
as with one. `cblas_sgemm_batch` takes products of different heights in one call, and gives every thread whole
products. The result is therefore the same, bit for bit, for any number of threads.
torch's builds for x86 hold MKL and export this function; there is no operator of torch for it.

Measured with two threads and 115 columns of 64 x 512, for 16,384 rows, in ms:

    product              loop over columns    batched
    x times up                        12.9       10.8
    neurons times down                32.3       22.2
    gradient of weights               21.3       11.2

Legend: E columns, P rows sorted by column; K and F: inputs and outputs of one product.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braingpt.kernels.launch import report_bytes

# CBLAS names: order of a matrix in memory, and whether a factor is transposed.
ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
SYMBOLS = {torch.float32: "cblas_sgemm_batch", torch.float64: "cblas_dgemm_batch"}


class MKLBatch:
    """As `ColumnProducts`; a column without rows is not read."""

    def __init__(self, start_E1: Tensor) -> None:
        first_E, size_E = start_E1[:-1].numpy(), start_E1.diff().numpy()
        # Columns with rows, the first row of each, and the number of its rows.
        self.live = np.flatnonzero(size_E)
        self.empty = np.flatnonzero(size_E == 0)
        self.first, self.rows = first_E[self.live], size_E[self.live].astype(np.int32)

    def times(self, x_PK: Tensor, matrix_EKF: Tensor) -> Tensor:
        """(P, F) each column's rows times its matrix."""
        inputs, outputs = matrix_EKF.shape[1:]
        x_PK, y_PF = x_PK.contiguous(), x_PK.new_empty(len(x_PK), outputs)
        _, high, wide = matrix_EKF.stride()
        turned = high == 1 and wide >= inputs
        if not turned and not (wide == 1 and high >= outputs):
            matrix_EKF = matrix_EKF.contiguous()
        self._multiply(
            (PLAIN, self._addresses(x_PK, self.first), inputs),
            (
                TRANSPOSED if turned else PLAIN,
                self._addresses(matrix_EKF, self.live),
                matrix_EKF.stride(2 if turned else 1),
            ),
            (self._addresses(y_PF, self.first), outputs),
            (self.rows, outputs, inputs),
            x_PK.dtype,
        )
        report_bytes(lambda: self._moved(x_PK, y_PF, matrix_EKF))
        return y_PF

    def outer(self, a_PK: Tensor, b_PF: Tensor, out_EKF: Tensor) -> None:
        """Each column's rows of `a`, transposed, times its rows of `b`; zero for a column without rows."""
        a_PK, b_PF = a_PK.contiguous(), b_PF.contiguous()
        if len(self.empty):
            out_EKF[torch.from_numpy(self.empty)] = 0
        self._multiply(
            (TRANSPOSED, self._addresses(a_PK, self.first), a_PK.shape[1]),
            (PLAIN, self._addresses(b_PF, self.first), b_PF.shape[1]),
            (self._addresses(out_EKF, self.live), out_EKF.stride(1)),
            (a_PK.shape[1], b_PF.shape[1], self.rows),
            a_PK.dtype,
        )
        report_bytes(lambda: self._moved(a_PK, b_PF, out_EKF))

    def _addresses(self, tensor: Tensor, index: np.ndarray) -> np.ndarray:
        """Where the given entries of the first axis begin."""
        return tensor.data_ptr() + index * (tensor.stride(0) * tensor.element_size())

    def _moved(self, one: Tensor, two: Tensor, matrices: Tensor) -> int:
        """Bytes that a product moves: the rows once, and the matrices of columns with rows."""
        matrix = matrices[0].numel() * len(self.live)
        return one.element_size() * (one.numel() + two.numel() + matrix)

    def _multiply(
        self,
        left: tuple[int, np.ndarray, int],
        right: tuple[int, np.ndarray, int],
        out: tuple[np.ndarray, int],
        shape: tuple[Any, Any, Any],
        dtype: torch.dtype,
    ) -> None:
        """out = left times right for every column with rows.

        Args:
            left, right: Whether transposed, addresses, and the distance of rows in memory.
            out: Addresses, and the distance of rows.
            shape: Rows of the result, its columns, and the length of the sums: one number, or one a column.
            dtype: The type of all numbers.
        """
        count = len(self.live)
        if not count:
            return
        number = np.float32 if dtype == torch.float32 else np.float64
        each = [_every(value, count, np.int32) for value in (left[0], right[0], *shape)]
        factors = [_every(value, count, number) for value in (1, 0)]
        strides = [_every(value, count, np.int32) for value in (left[2], right[2], out[1])]
        addresses = [np.ascontiguousarray(one, dtype=np.int64) for one in (left[1], right[1], out[0])]
        # Each column is a group of one product.
        sizes = _every(1, count, np.int32)
        order = (
            *each,
            factors[0],
            *(part for pair in zip(addresses[:2], strides[:2], strict=True) for part in pair),
            factors[1],
            addresses[2],
            strides[2],
        )
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in order]
        function = _function(SYMBOLS[dtype])
        assert function is not None
        function(ROW_MAJOR, *pointers, ctypes.c_int(count), ctypes.c_void_p(sizes.ctypes.data))


def _every(value: Any, count: int, dtype: Any) -> np.ndarray:
    return np.full(count, value, dtype) if np.isscalar(value) else np.ascontiguousarray(value, dtype=dtype)


@functools.cache
def _function(symbol: str) -> Callable[..., None] | None:
    """A function of the MKL within torch's library, or None."""
    # The library that defines torch's operators is in the process already.
    library = ctypes.CDLL(torch._C.__file__)
    function: Any = getattr(library, symbol, None)
    if function is not None:
        function.restype = None
    return function


def mkl_unavailable_reason() -> str | None:
    """Why MKL's batched product cannot run here, or None."""
    if not torch.backends.mkl.is_available() or _function(SYMBOLS[torch.float32]) is None:
        return f"this build of torch {torch.__version__} has no MKL"
    return None


def mkl_supports(x_ND: Tensor) -> bool:
    """Whether MKL's batched product takes the tensor."""
    return x_ND.device.type == "cpu" and x_ND.dtype in SYMBOLS
