"""The gated delta rule: Hebbian writing that corrects its error.

    S' = exp(g_t) S_{t-1}        u_t = beta_t (v_t - k_t S')        S_t = S' + k_t' u_t        y_t = q_t S_t

A key that is already bound is bound again: what S answers to k is read first, and only the difference to v is
written (Yang, Kautz & Hatamizadeh 2024, "Gated Delta Networks", sections 3.1 and 3.3).

`recurrent` is the definition, one token at a time.
`chunked` computes the same with matrix products.
Inside a chunk the u depend on each other through a unit lower triangular system, the WY form of the product
of the (I - beta k'k).
The system is solved once for what the values ask and once for what the state before the chunk answers.

Everything is float32 (or float64), under autocast as well.
A document's first token starts from a zero state: `run_BL` numbers the documents.

Legend: B batch, L tokens, H heads, K channels of a key, V of a value, C chunks, Q tokens a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend


def recurrent(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    beta_BLH: Tensor,
    decay_BLH: Tensor,
    state_BHKV: Tensor,
    run_BL: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply the rule to sequences, one token after the other.

    A token with beta = 0 and g = 0 changes nothing.

    Args:
        q_BLHK: Queries.
        k_BLHK: Keys, of length 1 (or 0).
        v_BLHV: Values to bind to the keys.
        beta_BLH: Share of the error that is corrected, 0 to 1.
        decay_BLH: The logarithm g <= 0 of the share of the state that remains.
        state_BHKV: State before the first token.
        run_BL: Number of each token's document; None: each row is one document.

    Returns:
        Outputs (B, L, H, V) and the state after the last token (B, H, K, V).
    """
    outputs, state = [], state_BHKV
    for t in range(q_BLHK.shape[1]):
        if run_BL is not None and t > 0:
            state = state * (run_BL[:, t] == run_BL[:, t - 1])[:, None, None, None]
        y, state = step(q_BLHK[:, t], k_BLHK[:, t], v_BLHV[:, t], beta_BLH[:, t], decay_BLH[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, beta_BH: Tensor, decay_BH: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply the rule to one token.

    Args:
        q_BHK, k_BHK, v_BHV, beta_BH, decay_BH, state_BHKV: As in `recurrent`, for one token.

    Returns:
        Outputs (B, H, V) and the new state (B, H, K, V).
    """
    dtype, wide = v_BHV.dtype, state_BHKV.dtype
    q_BHK, k_BHK, v_BHV = q_BHK.to(wide), k_BHK.to(wide), v_BHV.to(wide)
    with torch.autocast(q_BHK.device.type, enabled=False):
        state_BHKV = decay_BH.to(wide).exp()[..., None, None] * state_BHKV
        error_BHV = beta_BH.to(wide)[..., None] * (
            v_BHV - torch.matmul(k_BHK[..., None, :], state_BHKV).squeeze(-2)
        )
        state_BHKV = state_BHKV + torch.matmul(k_BHK[..., None], error_BHV[..., None, :])
        return torch.matmul(q_BHK[..., None, :], state_BHKV).squeeze(-2).to(dtype), state_BHKV


def chunked(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    beta_BLH: Tensor,
    decay_BLH: Tensor,
    state_BHKV: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Apply the rule in chunks; differentiable in all tensors.

    L is padded to a multiple of the chunk by tokens that change nothing.

    Args:
        q_BLHK, k_BLHK, v_BLHV, beta_BLH, decay_BLH, state_BHKV, run_BL: As in `recurrent`.
        chunk: Tokens a chunk.

    Returns:
        Outputs (B, L, H, V) and the state after the last token (B, H, K, V).
    """
    batch, length, _, _ = q_BLHK.shape
    dtype, wide, chunk = v_BLHV.dtype, state_BHKV.dtype, min(chunk, length)
    pad = -length % chunk

    def cut(x: Tensor) -> Tensor:
        """(B, L, H, ...) to (B, H, C, Q, ...)."""
        x = F.pad(x.to(wide), (0, 0) * (x.ndim - 2) + (0, pad)) if pad else x.to(wide)
        return x.unflatten(1, (-1, chunk)).movedim(3, 1)

    with torch.autocast(q_BLHK.device.type, enabled=False):
        q, k, v, beta, decay = (
            cut(x) for x in (q_BLHK, k_BLHK, v_BLHV, beta_BLH[..., None], decay_BLH[..., None])
        )
        # Logarithm of the decay from the chunk's start through each token.
        decay_BHCQ = decay.squeeze(-1).cumsum(-1)
        allowed = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
        from_start, to_end = decay_BHCQ.exp(), (decay_BHCQ[..., -1:] - decay_BHCQ).exp()
        survives = decay_BHCQ[..., -1].exp()
        if run_BL is not None:
            run_BCQ = torch.cat([run_BL, run_BL[:, -1:].expand(-1, pad)], 1).view(batch, -1, chunk)
            last_BC = run_BCQ[..., -1]
            # The initial state belongs to the first document.
            before_BC = torch.cat([run_BL[:, :1], last_BC[:, :-1]], 1)
            allowed = (allowed & (run_BCQ[..., :, None] == run_BCQ[..., None, :]))[:, None]
            from_start = from_start * (run_BCQ == before_BC[..., None])[:, None]
            to_end = to_end * (run_BCQ == last_BC[..., None])[:, None]
            survives = survives * (before_BC == last_BC)[:, None]
        span_BHCQQ = decay_BHCQ[..., :, None] - decay_BHCQ[..., None, :]
        weight_BHCQQ = span_BHCQQ.masked_fill(~allowed, float("-inf")).exp()

        # (I + strict lower part of beta_i exp(g_i - g_j) k_i . k_j) u = beta (v - exp(g) k S), where S is
        # the state before the chunk.
        system_BHCQQ = (beta * weight_BHCQQ * torch.matmul(k, k.mT)).tril(-1)
        asked = torch.cat([beta * v, beta * from_start[..., None] * k], -1)
        solved = torch.linalg.solve_triangular(system_BHCQQ, asked, upper=False, unitriangular=True)
        value_BHCQV, answer_BHCQK = solved.split([v.shape[-1], k.shape[-1]], -1)
        read_BHCQQ = weight_BHCQQ * torch.matmul(q, k.mT)
        q, k = q * from_start[..., None], k * to_end[..., None]

        outputs, state = [], state_BHKV
        for i in range(q.shape[2]):
            error_BHQV = value_BHCQV[:, :, i] - torch.matmul(answer_BHCQK[:, :, i], state)
            outputs.append(torch.matmul(q[:, :, i], state) + torch.matmul(read_BHCQQ[:, :, i], error_BHQV))
            state = survives[:, :, i, None, None] * state + torch.matmul(k[:, :, i].mT, error_BHQV)
    y_BLHV = torch.cat(outputs, 2).transpose(1, 2)[:, :length]
    return y_BLHV.to(dtype), state


def flops(keys: int, values: int, chunk: float) -> float:
    """Count the operations of one head for a token, the triangular solve included.

    Args:
        keys: Channels of a key.
        values: Channels of a value.
        chunk: Tokens a chunk; 1 for `step`.

    Returns:
        Floating-point operations a token.
    """
    if chunk == 1:
        return 6 * keys * values
    return 6 * keys * values + 2 * chunk * (2 * keys + values) + chunk * (keys + values)


def gated_delta_rule(
    q_BLHK: Tensor,
    k_BLHK: Tensor,
    v_BLHV: Tensor,
    beta_BLH: Tensor,
    decay_BLH: Tensor,
    state_BHKV: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Apply the rule by the fastest backend for the queries' device and type.

    Args:
        q_BLHK, k_BLHK, v_BLHV, beta_BLH, decay_BLH, state_BHKV, run_BL: As in `recurrent`.
        chunk: Tokens a chunk, which only the speed depends on.

    Returns:
        Outputs (B, L, H, V) and the state after the last token (B, H, K, V).
    """
    tensors = q_BLHK, k_BLHK, v_BLHV, beta_BLH, decay_BLH, state_BHKV
    if dispatch.select("delta rule") == "chunked":
        return chunked(*tensors, run_BL, chunk)
    return recurrent(*tensors, run_BL)


dispatch.register("delta rule", Backend("chunked"), Backend("torch"))
