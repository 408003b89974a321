"""Weights held as int8 for decoding, instead of the parameters that were trained.

Such a model can no longer be trained or saved.

Legend: N tokens, E columns, A winners a token, W neurons a column, D hidden or inputs, F outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.int8 import int8_linear, quantize


class Int8Weight(nn.Module):
    """An int8 copy of a weight (F, D) with one scale a row; x (..., D) to (..., F)."""

    values: Tensor
    scale: Tensor

    def __init__(self, weight_FD: Tensor) -> None:
        super().__init__()
        values_FD, scale_F = quantize(weight_FD.detach())
        self.register_buffer("values", values_FD, persistent=False)
        self.register_buffer("scale", scale_F, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return int8_linear(x, self.values, self.scale)

    def rows(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows of the weight, restored in `dtype`, (..., D)."""
        return self.values[index].to(dtype) * self.scale[index].to(dtype)[..., None]

    def all_rows(self, dtype: torch.dtype) -> Tensor:
        """The whole weight (F, D), restored in `dtype`."""
        return self.values.to(dtype) * self.scale.to(dtype)[:, None]


def shape_only(parameter: Tensor) -> nn.Parameter:
    """A parameter of the same shape without data, so that the model still counts its weights."""
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)


class Int8Columns(nn.Module):
    """int8 copies of columns' weights (E, 2, W, D): input weights with a scale a neuron, output weights
    transposed, with a scale an output.
    """

    def __init__(self, weight_E2WD: Tensor) -> None:
        super().__init__()
        self.up = Int8Weight(weight_E2WD[:, 0])
        self.down = Int8Weight(weight_E2WD[:, 1].mT.contiguous())

    def forward(
        self, x_ND: Tensor, winner_NA: Tensor, share_NA: Tensor, pairs: Pairs | None = None
    ) -> tuple[Tensor, Tensor]:
        """`kernels.columns.columns.columns` with int8 weights; only winners' weights are read."""
        if torch.compiler.is_compiling():
            return self._forward_gathered(x_ND, winner_NA, share_NA)
        if len(x_ND) == 1:
            return self._forward_one(x_ND, winner_NA[0].tolist(), share_NA[0])
        pairs = pairs or Pairs.of(winner_NA, len(self.up.values))
        share_P1, start = share_NA.flatten()[pairs.order, None], pairs.start.tolist()
        acts, outputs = [], []
        for e in winner_NA.unique().tolist():
            rows = slice(start[e], start[e + 1])
            acts.append(F.relu(int8_linear(x_ND[pairs.token[rows]], self.up.values[e], self.up.scale[e])))
            outputs.append(
                int8_linear(acts[-1] * acts[-1] * share_P1[rows], self.down.values[e], self.down.scale[e])
            )
        return torch.cat(outputs)[pairs.place].sum(1), torch.cat(acts)

    def _forward_one(self, x_1D: Tensor, winners: list[int], share_A: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one token, without sorting."""
        y_1D, acts = torch.zeros_like(x_1D), []
        for e, share in zip(winners, share_A.unbind(), strict=True):
            act_1W = F.relu(int8_linear(x_1D, self.up.values[e], self.up.scale[e]))
            y_1D += int8_linear(act_1W * act_1W * share, self.down.values[e], self.down.scale[e])
            acts.append(act_1W)
        return y_1D, torch.cat(acts)

    def _forward_gathered(self, x_ND: Tensor, winner_NA: Tensor, share_NA: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the few rows of a compiled step: the compiler fuses gathering and products."""
        up_NAWD = self.up.values[winner_NA].to(x_ND.dtype)
        down_NADW = self.down.values[winner_NA].to(x_ND.dtype)
        act_NAW = F.relu((up_NAWD * x_ND[:, None, None]).sum(-1) * self.up.scale[winner_NA].to(x_ND.dtype))
        z_NAW = act_NAW * act_NAW * share_NA[..., None]
        y_NAD = (down_NADW * z_NAW[:, :, None]).sum(-1) * self.down.scale[winner_NA].to(x_ND.dtype)
        return y_NAD.sum(1), act_NAW.flatten(0, 1)
