"""The state-space scan by two libraries that need a GPU: flash-linear-attention and mamba-ssm.

Each library is imported at its first use, because it may be missing or built for another torch.
Arguments and results are those of `scan.scan`.
Both libraries keep the states inside a scan in the inputs' type, where our kernels and the reference keep
float32.

Legend: B batch, L tokens, H heads, P channels a head, N state, T all tokens of a batch in one row, S
documents in that row.
"""

import torch
from torch import Tensor

from braingpt.kernels.dispatch import OptionalFunction

FLA = OptionalFunction("fla.ops.simple_gla", "chunk_simple_gla")
MAMBA = OptionalFunction("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")


def fla_unavailable_reason() -> str | None:
    """Why flash-linear-attention cannot run here, or None."""
    return FLA.library_unavailable_reason()


def mamba_unavailable_reason() -> str | None:
    """Why mamba-ssm cannot run here, or None."""
    return MAMBA.library_unavailable_reason()


def fla_scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """By flash-linear-attention's simple gated linear attention.

    Queries are c, keys b, values dt x and log gates dt a, unscaled; the library chooses its own chunk.
    Documents become sequences of one long row, whose bounds the CPU finds: with `run` it waits for the GPU.
    """
    batch, length, heads, _ = x_BLHP.shape
    query_BLHN, key_BLHN = (t[:, :, None].expand(-1, -1, heads, -1) for t in (c_BLN, b_BLN))
    value_BLHP = x_BLHP * dt_BLH[..., None].to(x_BLHP.dtype)
    gate_BLH = dt_BLH * a_H
    if run_BL is None:
        return FLA(
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
    # Number of documents up to the end of each row.
    of_row_B = begins_BL.sum(1).cumsum(0)
    first_B = of_row_B - begins_BL.sum(1)
    state_SHNP = state_BHNP.new_zeros(len(starts_S), *state_BHNP.shape[1:]).index_copy(0, first_B, state_BHNP)
    inputs = (t.flatten(0, 1)[None] for t in (query_BLHN, key_BLHN, value_BLHP, gate_BLH))
    y_1THP, state_SHNP = FLA(
        *inputs, scale=1.0, initial_state=state_SHNP, output_final_state=True, cu_seqlens=bounds
    )
    return y_1THP.view_as(x_BLHP), state_SHNP[of_row_B - 1]


def mamba_scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """By mamba-ssm's kernels.

    There b and c are one group that all heads share, states are (B, H, P, N), and the initial state belongs
    to document 0.
    """
    documents = None if run_BL is None else (run_BL - run_BL[:, :1]).int()
    y_BLHP, state_BHPN = MAMBA(
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
