"""The competition on a GPU: router's logits, settling and choice by Triton kernels.

`triton_kernels.py` has the kernels and says how they divide the work.

Legend: N tokens, E columns, A winners a token, R interneurons, O rounds, D hidden.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from braingpt.kernels.competition import triton_kernels as kernels
from braingpt.kernels.launch import launch

# Columns of a group, of which `settle_pooled` keeps the best.
GROUP = 16
# Rows of a block.
SETTLE_ROWS, CHOOSE_ROWS = 32, 2


def compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    settling: float,
    excitation_dtype: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `competition.compete` for float32, with two differences.

    The excitation is empty unless learning, and the interneurons' excitation is of all rounds: (O, N, R).
    """
    tokens, columns = logit_NE.shape
    units = 0 if strength.ndim == 2 else strength.shape[2]
    logit_NE, strength = logit_NE.contiguous(), strength.contiguous()
    winner_NA = torch.empty(tokens, active, dtype=torch.int64, device=logit_NE.device)
    drive_NA = logit_NE.new_empty(tokens, active)
    excited_NE = logit_NE.new_empty(tokens, columns if learning else 0, dtype=excitation_dtype)
    pooled_ONR = logit_NE.new_empty(rounds, tokens, units)
    shape: dict[str, Any] = {
        "N": tokens,
        "E": columns,
        "ROUNDS": rounds,
        "SETTLING": settling,
        "ASM": not knobs.runtime.interpret,
    }
    # TF32 rounds the inhibition less than 16 bits round the excitation.
    precision = "tf32" if excitation_dtype.itemsize == 2 else "tf32x3"
    products: dict[str, Any] = {"PRECISION": precision, "LEARNING": learning}
    winners: dict[str, Any] = {"A": active, "S": triton.next_power_of_2(active)}
    if strength.ndim == 2:
        launch(
            kernels.settle_pairs,
            (triton.cdiv(tokens, SETTLE_ROWS),),
            logit_NE,
            strength,
            bias_E,
            excited_NE,
            winner_NA,
            drive_NA,
            M=SETTLE_ROWS,
            B=max(16, triton.next_power_of_2(columns)),
            num_warps=8,
            **shape,
            **products,
            **winners,
        )
        return winner_NA, drive_NA, excited_NE, pooled_ONR
    to_ER, from_RE, own_E = strength[0], strength[1].T.contiguous(), (strength[0] * strength[1]).sum(-1)
    best_NG = logit_NE.new_empty(tokens, triton.cdiv(columns, GROUP))
    groups: dict[str, Any] = {"C": GROUP, "R": units}
    launch(
        kernels.settle_pooled,
        (triton.cdiv(tokens, SETTLE_ROWS),),
        logit_NE,
        to_ER,
        from_RE,
        own_E,
        bias_E,
        excited_NE,
        pooled_ONR,
        best_NG,
        M=SETTLE_ROWS,
        B=64,
        S=max(16, triton.next_power_of_2(units)),
        **shape,
        **products,
        **groups,
    )
    launch(
        kernels.choose,
        (triton.cdiv(tokens, CHOOSE_ROWS),),
        logit_NE,
        from_RE,
        own_E,
        bias_E,
        pooled_ONR,
        best_NG,
        winner_NA,
        drive_NA,
        M=CHOOSE_ROWS,
        GROUPS=best_NG.shape[1],
        G=triton.next_power_of_2(best_NG.shape[1]),
        # One warp: rows are reduced by shuffles alone.
        num_warps=1,
        # The logits of groups that are not chosen are not read.
        extra_bytes=lambda: -4 * tokens * max(0, columns - active * GROUP),
        **shape,
        **groups,
        **winners,
    )
    return winner_NA, drive_NA, excited_NE, pooled_ONR


def logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    """(N, E) x weight^T of 16-bit numbers, in float32.

    cuBLAS needs 400 us for 32,768 x 1,024 x 320 on an H100 when the result is wider than the operands.
    """
    (tokens, hidden), columns = x_ND.shape, len(weight_ED)
    logit_NE = x_ND.new_empty(tokens, columns, dtype=torch.float32)
    operand = tl.float32 if knobs.runtime.interpret else getattr(tl, str(x_ND.dtype).removeprefix("torch."))
    launch(
        kernels.logits,
        (triton.cdiv(tokens, 128) * triton.cdiv(columns, 128),),
        x_ND.contiguous(),
        weight_ED.contiguous(),
        logit_NE,
        tokens,
        E=columns,
        D=hidden,
        M=128,
        B=128,
        K=64,
        OPERAND=operand,
        num_warps=8,
        num_stages=3,
    )
    return logit_NE
