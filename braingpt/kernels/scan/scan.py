"""The state-space scan of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs", sections 6 and 7).

    h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t'        y_t = c_t h_t

`recurrent` is the definition, one token at a time; the other paths compute the same with matrix products
inside chunks and a short recurrence between them. Decays and states are float32 (or float64). A document's
first token starts from a zero state: `run_BL` numbers the documents.

Legend: B batch, L tokens, H heads, P channels a head, N state.
"""

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.scan import backends
from braingpt.kernels.scan.chunked import chunked


def recurrent(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, L, H, P) and the state after the last token (B, H, N, P), one token at a time.

    `a` is negative; a token of dt = 0 changes nothing.
    """
    outputs, state = [], state_BHNP
    for t in range(x_BLHP.shape[1]):
        if run_BL is not None and t > 0:
            state = state * (run_BL[:, t] == run_BL[:, t - 1])[:, None, None, None]
        y, state = step(x_BLHP[:, t], dt_BLH[:, t], a_H, b_BLN[:, t], c_BLN[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def step(
    x_BHP: Tensor, dt_BH: Tensor, a_H: Tensor, b_BN: Tensor, c_BN: Tensor, state_BHNP: Tensor
) -> tuple[Tensor, Tensor]:
    """One token: output (B, H, P) and the new state (B, H, N, P)."""
    decay_BH = torch.exp(dt_BH * a_H)
    written = b_BN[:, None, :, None] * (dt_BH[..., None] * x_BHP)[:, :, None, :]
    state_BHNP = decay_BH[..., None, None] * state_BHNP + written
    # Not as batched products of one row each: their start costs a CPU more than reading the state.
    return (c_BN[:, None, :, None] * state_BHNP).sum(2).to(x_BHP.dtype), state_BHNP


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
    """The scan by the fastest path that runs on x's device; arguments as `recurrent`, `chunk` tokens a chunk
    (a matter of speed only).
    """
    run = _PATHS[dispatch.select("scan", x_BLHP)]
    return run(x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, chunk)


def _reference(*tensors_and_chunk) -> tuple[Tensor, Tensor]:
    return recurrent(*tensors_and_chunk[:-1])


_PATHS = {
    "triton": backends.triton_scan,
    "fla": backends.fla_scan,
    "mamba-ssm": backends.mamba_scan,
    "chunked": chunked,
    "torch": _reference,
}
dispatch.register(
    "scan",
    ("triton", backends.why_no_triton, backends.on_gpu),
    ("fla", backends.why_no_fla, backends.on_gpu),
    ("mamba-ssm", backends.why_no_mamba, backends.on_gpu),
    ("chunked", dispatch.anywhere),
    ("torch", dispatch.anywhere),
)
