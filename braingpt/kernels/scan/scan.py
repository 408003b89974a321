"""The state-space scan of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs", sections 6 and 7).

    h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t'        y_t = c_t h_t

`reference.py` is the definition.
The other backends compute the same with matrix products inside chunks and a short recurrence between chunks:
`chunked.py` in plain torch for CPUs, `triton_ops.py` and `gpu_libraries.py` on GPUs.
Decays and states are float32 (or float64).

Legend: B batch, L tokens, H heads, P channels a head, N state.
"""

from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend, OptionalFunction
from braingpt.kernels.scan import gpu_libraries
from braingpt.kernels.scan.chunked import chunked
from braingpt.kernels.scan.reference import recurrent

_triton = OptionalFunction("braingpt.kernels.scan.triton_ops", "triton_scan")


def scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """The scan by the fastest backend for x's device and type.

    Args:
        x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL: As in `reference.recurrent`.
        chunk: Tokens a chunk, which only the speed depends on.

    Returns:
        Outputs (B, L, H, P) and the state after the last token (B, H, N, P).
    """
    implementation = _IMPLEMENTATIONS[dispatch.select("scan", x_BLHP)]
    return implementation(x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, chunk)


def _reference(*tensors_and_chunk) -> tuple[Tensor, Tensor]:
    return recurrent(*tensors_and_chunk[:-1])


_IMPLEMENTATIONS = {
    "triton": _triton,
    "fla": gpu_libraries.fla_scan,
    "mamba-ssm": gpu_libraries.mamba_scan,
    "chunked": chunked,
    "torch": _reference,
}
dispatch.register(
    "scan",
    Backend("triton", _triton.triton_unavailable_reason, dispatch.runs_on_gpu),
    Backend("fla", gpu_libraries.fla_unavailable_reason, dispatch.runs_on_gpu),
    Backend("mamba-ssm", gpu_libraries.mamba_unavailable_reason, dispatch.runs_on_gpu),
    Backend("chunked"),
    Backend("torch"),
)
