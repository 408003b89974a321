"""The competition between columns in plain torch: the definition, and what a CPU runs.

Legend: N tokens, E columns, A winners a token, R interneurons.
The inhibition is (E, E), from row to column, or (2, E, R): how strongly columns excite interneurons, and how
strongly interneurons inhibit columns.
"""

import torch
from torch import Tensor

from braingpt.kernels.linear import linear

# How far a round moves the excitation. It settles for columns that all others together inhibit by up to 7,
# where whole steps oscillate from 4 on.
SETTLING = 0.7


def compete(
    logit_NE: Tensor, strength: Tensor, bias_E: Tensor, rounds: int, active: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `competition.compete`, with the excitation in the logits' type."""
    excited_NE = torch.sigmoid(logit_NE)
    # A column that is inhibited inhibits less.
    for _ in range(rounds - 1):
        excited_NE = excited_NE.lerp(torch.sigmoid(logit_NE - inhibited(excited_NE, strength)[0]), SETTLING)
    inhibited_NE, pooled_NR = inhibited(excited_NE, strength)
    winner_NA = (logit_NE - inhibited_NE).add_(bias_E).topk(active, dim=-1).indices
    drive_NA = logit_NE.gather(-1, winner_NA) - inhibited_NE.gather(-1, winner_NA)
    return winner_NA, drive_NA, excited_NE, pooled_NR


def inhibited(excited_NE: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """What each column receives from all others, and the interneurons' excitation.

    Returns:
        Inhibition (N, E), and excitation of the interneurons (N, R), or (N, 0) where there are none.
    """
    if strength.ndim == 2:
        return linear(excited_NE, strength.mT), excited_NE[:, :0]
    to_ER, from_ER = strength
    pooled_NR = linear(excited_NE, to_ER.mT)
    return linear(pooled_NR, from_ER).sub_(excited_NE * (to_ER * from_ER).sum(-1)), pooled_NR
