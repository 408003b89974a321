"""The paths of the state-space scan that need a GPU: our Triton kernels, flash-linear-attention and
mamba-ssm.

Each is imported when it is first asked for, because triton and both libraries may be absent or built for
another torch; then `why_no_...` gives the reason in a line. Arguments and results as `scan.recurrent`, and
`chunk`. The two libraries keep the states inside in the inputs' type where ours and the reference keep
float32.

Legend: B batch, L tokens, H heads, P channels a head, N state, T all tokens of a batch in one row, S
documents in it.
"""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def on_gpu(x_BLHP: Tensor) -> bool:
    """Whether the tensor is one these paths are for: on a GPU, and of no type that only the reference
    computes in (float64).
    """
    return x_BLHP.is_cuda and x_BLHP.dtype in (torch.float32, torch.bfloat16, torch.float16)


@cache
def _import(module: str, name: str) -> tuple[Callable[..., Any] | None, str | None]:
    """The function and None, or None and why it cannot be had.

    Importing a broken build may raise anything.
    """
    try:
        return getattr(importlib.import_module(module), name), None
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            return None, "not installed"
        return None, f"installed but broken: {error}"
    except (Exception, SystemExit) as error:
        first_line = str(error).strip().partition("\n")[0][:160]
        return None, f"installed but broken: {type(error).__name__}: {first_line}"


def _why_not(module: str, name: str) -> str | None:
    return _import(module, name)[1] or (None if torch.cuda.is_available() else "needs a GPU")


def _function(module: str, name: str) -> Callable[..., Any]:
    found, reason = _import(module, name)
    if found is None:
        raise ValueError(f"{module}: {reason}")
    return found


TRITON = "braingpt.kernels.scan.triton_ops", "triton_scan"
FLA = "fla.ops.simple_gla", "chunk_simple_gla"
MAMBA = "mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"


def why_no_triton() -> str | None:
    """Why our kernels cannot run here."""
    return why_not_ours(*TRITON)


def why_not_ours(module: str, name: str) -> str | None:
    """Why a module of Triton kernels of our own cannot run here."""
    if not torch.cuda.is_available():
        return "needs a GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return "needs a GPU of compute capability 8.0 or later"
    return _why_not(module, name)


def why_no_fla() -> str | None:
    """Why flash-linear-attention cannot run here."""
    return _why_not(*FLA)


def why_no_mamba() -> str | None:
    """Why mamba-ssm cannot run here."""
    return _why_not(*MAMBA)


def triton_scan(
    x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """By our own kernels."""
    return _function(*TRITON)(x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, chunk)


def fla_scan(
    x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """By flash-linear-attention's simple gated linear attention: queries c, keys b, values dt x, log gates dt
    a, unscaled.

    Its chunk is its own choice. Documents are sequences of one long row, found on the CPU: with `run` this
    path waits for the GPU.
    """
    batch, length, heads, _ = x_BLHP.shape
    query_BLHN, key_BLHN = (t[:, :, None].expand(-1, -1, heads, -1) for t in (c_BLN, b_BLN))
    value_BLHP = x_BLHP * dt_BLH[..., None].to(x_BLHP.dtype)
    gate_BLH = dt_BLH * a_H
    if run_BL is None:
        return _function(*FLA)(
            query_BLHN,
            key_BLHN,
            value_BLHP,
            gate_BLH,
            scale=1.0,
            initial_state=state_BHNP,
            output_final_state=True,
        )
    begins_BL = torch.ones_like(run_BL, dtype=torch.bool)
    begins_BL[:, 1:] = run_BL[:, 1:] != run_BL[:, :-1]
    starts_S = begins_BL.flatten().nonzero()[:, 0]
    bounds = torch.cat([starts_S, starts_S.new_tensor([batch * length])])
    # documents up to each row's end
    of_row_B = begins_BL.sum(1).cumsum(0)
    first_B = of_row_B - begins_BL.sum(1)
    state_SHNP = state_BHNP.new_zeros(len(starts_S), *state_BHNP.shape[1:]).index_copy(0, first_B, state_BHNP)
    inputs = (t.flatten(0, 1)[None] for t in (query_BLHN, key_BLHN, value_BLHP, gate_BLH))
    y_1THP, state_SHNP = _function(*FLA)(
        *inputs, scale=1.0, initial_state=state_SHNP, output_final_state=True, cu_seqlens=bounds
    )
    return y_1THP.view_as(x_BLHP), state_SHNP[of_row_B - 1]


def mamba_scan(
    x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """By mamba-ssm's kernels: b and c are one group that all heads share; states are (B, H, P, N); a state
    handed in is document 0's.
    """
    documents = None if run_BL is None else (run_BL - run_BL[:, :1]).int()
    y_BLHP, state_BHPN = _function(*MAMBA)(
        x_BLHP,
        dt_BLH,
        a_H,
        b_BLN[:, :, None],
        c_BLN[:, :, None],
        chunk_size=chunk,
        initial_states=state_BHNP.mT.contiguous(),
        seq_idx=documents,
        return_final_states=True,
    )
    return y_BLHP, state_BHPN.mT
