"""The state-space scan of Mamba-2 by its definition, one token at a time (Dao & Gu 2024, section 6).

    h_t = exp(dt_t a) h_{t-1} + dt_t b_t x_t'        y_t = c_t h_t

Legend: B batch, L tokens, H heads, P channels a head, N state.
"""

import torch
from torch import Tensor


def recurrent(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scan sequences, one token after the other.

    Args:
        x_BLHP: Inputs.
        dt_BLH: Step sizes; a token whose step is 0 changes nothing.
        a_H: Decay of each head, negative.
        b_BLN: Directions in which tokens write to the state.
        c_BLN: Directions in which tokens read from the state.
        state_BHNP: State before the first token.
        run_BL: Number of each token's document; a document's first token starts from a zero state.
            None: each row is one document.

    Returns:
        Outputs (B, L, H, P) and the state after the last token (B, H, N, P).
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
    """Scan one token.

    Args:
        x_BHP, dt_BH, a_H, b_BN, c_BN, state_BHNP: As in `recurrent`, for one token.

    Returns:
        Outputs (B, H, P) and the new state (B, H, N, P).
    """
    decay_BH = torch.exp(dt_BH * a_H)
    written = b_BN[:, None, :, None] * (dt_BH[..., None] * x_BHP)[:, :, None, :]
    state_BHNP = decay_BH[..., None, None] * state_BHNP + written
    # Batched products of one row each would be slower: starting them costs a CPU more than reading the state.
    return (c_BN[:, None, :, None] * state_BHNP).sum(2).to(x_BHP.dtype), state_BHNP
