"""The state-space scan of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs", sections 6 and 7).

    h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t'        y_t = c_t h_t

`recurrent` is the definition, one token at a time; `chunked` computes the same with matrix products inside chunks and a short recurrence
between them. Decays and states are float32 (or float64). A document's first token starts from a zero state: `run_BL` numbers the documents.

Legend: B batch, L tokens, H heads, P channels a head, N state, C chunks, Q tokens a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch


def recurrent(
    x_BLHP: Tensor, dt_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHNP: Tensor, run_BL: Tensor | None = None
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


def step(x_BHP: Tensor, dt_BH: Tensor, a_H: Tensor, b_BN: Tensor, c_BN: Tensor, state_BHNP: Tensor) -> tuple[Tensor, Tensor]:
    """One token: output (B, H, P) and the new state (B, H, N, P)."""
    decay_BH = torch.exp(dt_BH * a_H)
    written = b_BN[:, None, :, None] * (dt_BH[..., None] * x_BHP)[:, :, None, :]
    state_BHNP = decay_BH[..., None, None] * state_BHNP + written
    return torch.matmul(c_BN[:, None, None, :].to(state_BHNP.dtype), state_BHNP).squeeze(2).to(x_BHP.dtype), state_BHNP


def chunked(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """As `recurrent`, with L padded to whole chunks by tokens of dt = 0. Differentiable in all tensors."""
    length, dtype = x_BLHP.shape[1], x_BLHP.dtype
    chunk = min(chunk, length)
    pad = -length % chunk
    if pad:
        x_BLHP, dt_BLH = F.pad(x_BLHP, (0, 0, 0, 0, 0, pad)), F.pad(dt_BLH, (0, 0, 0, pad))
        b_BLN, c_BLN = F.pad(b_BLN, (0, 0, 0, pad)), F.pad(c_BLN, (0, 0, 0, pad))
        run_BL = None if run_BL is None else torch.cat([run_BL, run_BL[:, -1:].expand(-1, pad)], 1)
    batch, padded, heads, width = x_BLHP.shape
    chunks = padded // chunk

    dt_BHCQ = dt_BLH.view(batch, chunks, chunk, heads).permute(0, 3, 1, 2)
    x_BHCQP = x_BLHP.view(batch, chunks, chunk, heads, width).permute(0, 3, 1, 2, 4) * dt_BHCQ[..., None].to(dtype)
    b_BCQN, c_BCQN = b_BLN.view(batch, chunks, chunk, -1), c_BLN.view(batch, chunks, chunk, -1)
    decay_BHCQ = torch.cumsum(dt_BHCQ * a_H[:, None, None], -1)  # log of the decay from the chunk's start through each token

    # Inside a chunk: y_i = sum over j <= i of (c_i . b_j) exp(decay_i - decay_j) dt_j x_j.
    allowed = torch.ones(chunk, chunk, dtype=torch.bool, device=x_BLHP.device).tril()
    if run_BL is not None:
        run_BCQ = run_BL.view(batch, chunks, chunk)
        allowed = (allowed & (run_BCQ[..., :, None] == run_BCQ[..., None, :]))[:, None]
    span_BHCQQ = decay_BHCQ[..., :, None] - decay_BHCQ[..., None, :]
    weight_BHCQQ = torch.exp(span_BHCQQ.masked_fill(~allowed, float("-inf"))).to(dtype)
    weight_BHCQQ = weight_BHCQQ * torch.matmul(c_BCQN, b_BCQN.mT)[:, None]
    y_BHCQP = torch.matmul(weight_BHCQQ, x_BHCQP)

    # What each chunk adds to the state at its end, what of the state before it survives to its end, and to each of its tokens.
    to_end_BHCQ = torch.exp(decay_BHCQ[..., -1:] - decay_BHCQ)
    survives_BHC = torch.exp(decay_BHCQ[..., -1])
    from_start_BHCQ = torch.exp(decay_BHCQ)
    if run_BL is not None:
        last_BC = run_BCQ[..., -1]
        before_BC = F.pad(last_BC[:, :-1], (1, 0))
        before_BC[:, 0] = run_BL[:, 0]  # a state handed in belongs to the first document
        to_end_BHCQ = to_end_BHCQ * (run_BCQ == last_BC[..., None])[:, None]
        survives_BHC = survives_BHC * (before_BC == last_BC)[:, None]
        from_start_BHCQ = from_start_BHCQ * (run_BCQ == before_BC[..., None])[:, None]
    added_BHCNP = torch.matmul(b_BCQN.mT[:, None].to(to_end_BHCQ.dtype), to_end_BHCQ[..., None] * x_BHCQP)

    states, state = [], state_BHNP
    for i in range(chunks):
        states.append(state)
        state = survives_BHC[:, :, i, None, None] * state + added_BHCNP[:, :, i]
    before_BHCNP = torch.stack(states, 2)
    y_BHCQP = y_BHCQP + (from_start_BHCQ[..., None] * torch.matmul(c_BCQN[:, None].to(state.dtype), before_BHCNP)).to(dtype)
    return y_BHCQP.permute(0, 2, 3, 1, 4).reshape(batch, padded, heads, width)[:, :length], state


def scan(*args, chunk: int = 64, **kwargs) -> tuple[Tensor, Tensor]:
    """The scan by the path that runs here; arguments as `chunked`."""
    if dispatch.chosen("scan") == "chunked":
        return chunked(*args, chunk=chunk, **kwargs)
    return recurrent(*args, **kwargs)


dispatch.register("scan", ("chunked", lambda: None), ("torch", lambda: None))
