"""Columns by their definition: a plain loop over all columns.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D
hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels.columns.pairs import Pairs


def reference(
    x_ND: Tensor, weight_E2WD: Tensor, winner_NA: Tensor, share_NA: Tensor
) -> tuple[Tensor, Tensor]:
    """As `columns.columns`; autograd computes the gradients."""
    pairs = Pairs.of(winner_NA, len(weight_E2WD))
    rows = x_ND[pairs.token].split(pairs.start.diff().tolist())
    act_PW = torch.cat([F.relu(x @ weight[0].T) for x, weight in zip(rows, weight_E2WD, strict=True)])
    rows = (act_PW * act_PW * share_NA.flatten()[pairs.order, None]).split(pairs.start.diff().tolist())
    y_PD = torch.cat([z @ weight[1] for z, weight in zip(rows, weight_E2WD, strict=True)])
    return y_PD[pairs.place].sum(1), act_PW.detach()
