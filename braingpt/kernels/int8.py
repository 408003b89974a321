"""Products with weights kept as int8, one scale an output row: a quarter of the bytes, for decoding, which is
bound by reading weights.

Rounding is symmetric, to the nearest of 255 levels of each row's largest magnitude (LLM.int8(), Dettmers et
al. 2022, section 2, without its outliers). The packed path reads int8 weights and multiplies them with
bfloat16 activations, accumulating in float32; measured on one core for a head of 16,448 x 512 that is not in
cache: 1.1 to 1.3 ms a token, against 3.4 to 3.9 ms for the float32 product. Compiled, one row is a sum of
products in the activations' own type, as fast and joined with its neighbours.

Legend: N rows, D inputs, F outputs.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.linear import written_out

# the kernel reads so many at a time and does not check that they are there
INPUTS = 16
# beyond, the packed path is slower than one dequantised product
MOST_ROWS = 8


def quantize(weight_FD: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values (..., F, D) and float32 scales (..., F) with weight close to values x scale."""
    scale_F = weight_FD.float().abs().amax(-1).clamp(min=1e-12) / 127
    return (weight_FD.float() / scale_F[..., None]).round().to(torch.int8), scale_F


def reference(x_ND: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    """x times the weight that values and scales stand for, transposed. Shape (N, F)."""
    return F.linear(x_ND, values_FD.to(x_ND.dtype)) * scale_F.to(x_ND.dtype)


def int8_linear(x: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    """`reference` for x of shape (..., D), by the path that runs here."""
    rows = x.shape[:-1].numel()
    if rows == 1 and x.device.type == "cpu" and torch.compiler.is_compiling():
        return written_out(x, values_FD) * scale_F.to(x.dtype)
    if (
        rows > MOST_ROWS
        or x.shape[-1] % INPUTS
        or torch.compiler.is_compiling()
        or dispatch.select("int8_linear", x) == "torch"
    ):
        return reference(x, values_FD, scale_F)
    return _packed(x.reshape(rows, -1), values_FD, scale_F).view(*x.shape[:-1], -1)


def _packed(x_ND: Tensor, values_FD: Tensor, scale_F: Tensor) -> Tensor:
    # The kernel's own scales would be rounded to bfloat16; ones are exact.
    ones_F = torch.ones(values_FD.shape[0], dtype=torch.bfloat16)
    return torch._weight_int8pack_mm(x_ND.bfloat16(), values_FD, ones_F).to(x_ND.dtype) * scale_F.to(
        x_ND.dtype
    )


# asked at every product
@functools.cache
def _why_no_packed() -> str | None:
    if not hasattr(torch, "_weight_int8pack_mm"):
        return f"torch {torch.__version__} lacks it"
    try:
        torch._weight_int8pack_mm(
            torch.ones(1, 16, dtype=torch.bfloat16),
            torch.ones(16, 16, dtype=torch.int8),
            torch.ones(16, dtype=torch.bfloat16),
        )
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


dispatch.register(
    "int8_linear", ("packed", _why_no_packed, lambda x: not x.is_cuda), ("torch", dispatch.anywhere)
)
