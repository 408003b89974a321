"""Products with weights kept as int8, one scale an output row: a quarter of float32's bytes.

Decoding is bound by reading weights, which is where fewer bytes pay.
Rounding is symmetric, to the nearest of 255 levels of each row's largest magnitude (LLM.int8(), Dettmers et
al. 2022, section 2, without its outliers).

The packed backend reads int8 weights, multiplies them with bfloat16 activations and accumulates in float32.
Measured on one core for a head of 16,448 x 512 that is not in cache, it takes 1.1 to 1.3 ms a token, where
the float32 product takes 3.4 to 3.9 ms.
Compiled, one row is a sum of products in the activations' own type, as fast and fused with its neighbours.

Legend: N rows, D inputs, F outputs.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend
from braingpt.kernels.linear import sum_of_products

# Inputs that the packed kernel reads at a time, without a check that they exist.
INPUT_MULTIPLE = 16
# With more rows the packed backend is slower than one dequantised product.
MAX_PACKED_ROWS = 8
# Rows that are rounded at a time, so that a large table needs no copies of its size.
ROWS_AT_ONCE = 1 << 16


def quantize(weight_FD: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to int8.

    Args:
        weight_FD: The weight (..., F, D).

    Returns:
        int8 values (..., F, D) and float32 scales (..., F); values times scale is close to the weight.
    """
    values_FD = torch.empty(weight_FD.shape, dtype=torch.int8, device=weight_FD.device)
    scale_F = torch.empty(weight_FD.shape[:-1], dtype=torch.float32, device=weight_FD.device)
    for start in range(0, len(weight_FD), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part = weight_FD[rows].float()
        scale_F[rows] = part.abs().amax(-1).clamp(min=1e-12) / 127
        values_FD[rows] = (part / scale_F[rows][..., None]).round().to(torch.int8)
    return values_FD, scale_F


def reference(x_ND: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    """Multiply x with the transposed weight that values and scales represent.

    Args:
        x_ND: Inputs.
        values_FD: int8 values from `quantize`.
        scale_F: Scales from `quantize`.

    Returns:
        Outputs (N, F) in x's type.
    """
    return F.linear(x_ND, values_FD.to(x_ND.dtype)) * scale_F.to(x_ND.dtype)


def int8_linear(x: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    """Multiply x with an int8 weight by the fastest backend for x's device and type.

    Args:
        x: Inputs (..., D).
        values_FD: int8 values from `quantize`.
        scale_F: Scales from `quantize`.

    Returns:
        Outputs (..., F) in x's type.
    """
    rows = x.shape[:-1].numel()
    if rows == 1 and x.device.type == "cpu" and torch.compiler.is_compiling():
        return sum_of_products(x, values_FD) * scale_F.to(x.dtype)
    if (
        rows > MAX_PACKED_ROWS
        or x.shape[-1] % INPUT_MULTIPLE
        or torch.compiler.is_compiling()
        or dispatch.select("int8_linear", x) == "torch"
    ):
        return reference(x, values_FD, scale_F)
    return _packed(x.reshape(rows, -1), values_FD, scale_F).view(*x.shape[:-1], -1)


def _packed(x_ND: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    # The kernel would round scales to bfloat16; ones are exact.
    ones_F = torch.ones(values_FD.shape[0], dtype=torch.bfloat16)
    product = torch._weight_int8pack_mm  # pyright: ignore[reportPrivateImportUsage]
    y_NF = product(x_ND.bfloat16(), values_FD, ones_F)
    return y_NF.to(x_ND.dtype) * scale_F.to(x_ND.dtype)


# Cached, because every product asks.
@functools.cache
def _packed_unavailable_reason() -> str | None:
    if not hasattr(torch, "_weight_int8pack_mm"):
        return f"torch {torch.__version__} lacks it"
    try:
        _packed(torch.ones(1, 16), torch.ones(16, 16, dtype=torch.int8), torch.ones(16))
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


dispatch.register(
    "int8_linear",
    Backend("packed", _packed_unavailable_reason, lambda x: not x.is_cuda),
    Backend("torch"),
)
