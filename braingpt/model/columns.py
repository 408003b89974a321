"""Cortical columns: an MLP split into columns that compete for each token through lateral inhibition.

`Competition` decides who wins; `SparseColumns` (V2) computes the winners only; `SilencedColumns` (V1) computes all and silences the losers.

Legend: N tokens, E columns, A winners a token, P = N x A pairs sorted by column, W neurons a column, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.grouped import grouped_matmul
from braingpt.kernels.two_four import masked_weight, two_four_mask
from braingpt.model.config import ColumnsConfig, SharedColumnsConfig
from braingpt.model.parts import MLP, Linear

BALANCE_RATE = 0.003  # how far one step moves a column's bias toward an even load (Wang et al. 2024, auxiliary-loss-free balancing)


class Competition(nn.Module):
    """Scores columns, lets them inhibit each other, and names the winners of each token."""

    def __init__(self, hidden: int, columns: ColumnsConfig) -> None:
        super().__init__()
        self.active = columns.active
        self.router = Linear(hidden, columns.count)
        # softplus(raw) is the inhibition: non-negative, at first weak and even, together about a tenth of a full column.
        start = torch.full((columns.count, columns.count), 0.1 / columns.count)
        self.inhibition = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        self.register_buffer("bias", torch.zeros(columns.count))
        self.register_buffer("load", torch.zeros(columns.count), persistent=False)

    def forward(self, x_ND: Tensor, valid_N: Tensor | None) -> tuple[Tensor, Tensor]:
        """Winners (N, A) and their shares (N, A), which sum to one. The balance bias decides with, but does not weigh."""
        logit_NE = self.router(x_ND)
        strength_EE = self._strength()
        excited_NE = torch.sigmoid(logit_NE)
        score_NE = torch.sigmoid(logit_NE - excited_NE @ strength_EE.to(excited_NE.dtype))
        winner_NA = (score_NE.detach() + self.bias.to(score_NE.dtype)).topk(self.active, dim=-1).indices
        if self.training and torch.is_grad_enabled():
            counted = winner_NA if valid_N is None else winner_NA[valid_N]
            self.load += torch.bincount(counted.flatten(), minlength=self.load.numel())
        share_NA = score_NE.gather(-1, winner_NA)
        return winner_NA, share_NA / share_NA.sum(-1, keepdim=True) if self.active > 1 else share_NA

    def _strength(self) -> Tensor:
        """(E, E) how strongly each column inhibits each other one; none inhibits itself."""
        return F.softplus(self.inhibition) * (1 - torch.eye(self.inhibition.shape[0], device=self.inhibition.device))

    @torch.no_grad()
    def after_step(self) -> None:
        """Raise the bias of columns that won less than their even share of this step's tokens, lower that of the others."""
        if self.load.any():
            self.bias += BALANCE_RATE * torch.sign(self.load.mean() - self.load)
            self.bias -= self.bias.mean()
        self.load.zero_()

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        return self.router.weight.numel() + self.inhibition.numel()


class SparseColumns(nn.Module):
    """V2: the winners' neurons, and a shared column, are all that is computed, forward, backward and in generation."""

    def __init__(self, hidden: int, columns: SharedColumnsConfig) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        bound = (3 / hidden) ** 0.5
        self.up = nn.Parameter(torch.empty(columns.count, hidden, columns.width).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.zeros(columns.count, columns.width, hidden))
        self.shared = MLP(hidden, columns.shared * columns.width) if columns.shared else None
        self.record = None

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        x_ND = x_BLD.flatten(0, 1)
        winner_NA, share_NA = self.competition(x_ND, None if valid_BL is None else valid_BL.flatten())
        column_P, order_P = winner_NA.flatten().sort(stable=True)
        sizes_E = torch.bincount(column_P, minlength=self.columns.count)
        token_P = order_P // self.columns.active
        act_PW = F.relu(grouped_matmul(x_ND.index_select(0, token_P), self.up, sizes_E)).square()
        y_PD = grouped_matmul(act_PW * share_NA.flatten()[order_P, None], self.down, sizes_E)
        y_ND = torch.zeros_like(x_ND, dtype=y_PD.dtype).index_add_(0, token_P, y_PD)
        if self.record is not None:
            self._count(x_ND.shape[0], sizes_E, act_PW)
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        return y_ND.view_as(x_BLD)

    def _count(self, tokens: int, sizes_E: Tensor, act_PW: Tensor) -> None:
        c, d = self.columns, self.up.shape[1]
        self.record.load(sizes_E)
        # The shared columns' MLP counts its own neurons and products.
        self.record.count(
            columns_active=tokens * (c.active + c.shared),
            columns=tokens * (c.count + c.shared),
            neurons=tokens * c.count * c.width,
            neurons_fired=int((act_PW > 0).sum()),
        )
        choosing = 2 * tokens * self.competition.parameters_active()
        self.record.products(choosing + 4 * act_PW.numel() * d, choosing + 4 * tokens * c.count * c.width * d)

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        c = self.columns
        shared = self.shared.parameters_active() if self.shared else 0
        return self.competition.parameters_active() + 2 * c.active * c.width * self.up.shape[1] + shared

    def flops(self) -> int:
        """Forward operations a token."""
        return 2 * self.parameters_active()


class SilencedColumns(nn.Module):
    """V1: every column is computed, the losers' neurons are then silent; weights optionally in 2:4 form."""

    def __init__(self, hidden: int, columns: ColumnsConfig, two_four: bool) -> None:
        super().__init__()
        self.columns = columns
        self.competition = Competition(hidden, columns)
        linear = TwoFourLinear if two_four else Linear
        self.up = linear(hidden, columns.count * columns.width)
        self.down = linear(columns.count * columns.width, hidden, out=True)
        self.record = None

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
        x_ND = x_BLD.flatten(0, 1)
        winner_NA, share_NA = self.competition(x_ND, None if valid_BL is None else valid_BL.flatten())
        share_NE = x_ND.new_zeros(x_ND.shape[0], self.columns.count).scatter(1, winner_NA, share_NA.to(x_ND.dtype))
        act_NEW = F.relu(self.up(x_ND)).square().unflatten(-1, (self.columns.count, -1)) * share_NE[..., None]
        if self.record is not None:
            self._count(x_ND.shape[0], winner_NA, act_NEW)
        return self.down(act_NEW.flatten(1)).view_as(x_BLD)

    def _count(self, tokens: int, winner_NA: Tensor, act_NEW: Tensor) -> None:
        c = self.columns
        self.record.load(torch.bincount(winner_NA.flatten(), minlength=c.count))
        self.record.count(
            columns_active=tokens * c.active,
            columns=tokens * c.count,
            neurons=act_NEW.numel(),
            neurons_fired=int((act_NEW > 0).sum()),
        )
        self.record.products(tokens * self.flops())

    def parameters_active(self) -> int:
        """Weights one token multiplies with: all of them, for silence here comes after the product."""
        return self.competition.parameters_active() + self.up.weight.numel() + self.down.weight.numel()

    def flops(self) -> int:
        """Forward operations a token."""
        return 2 * self.parameters_active()


class TwoFourLinear(Linear):
    """A linear map whose weight has at most two non-zeros among every four inputs. The mask follows the weights, step by step."""

    def __init__(self, inputs: int, outputs: int, out: bool = False) -> None:
        super().__init__(inputs, outputs, out)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.register_buffer("_pruned", None, persistent=False)
        self._pruned_version = -1
        if not self.weight.is_meta:
            self.after_step()

    @torch.no_grad()
    def after_step(self) -> None:
        """Choose the two largest of every four again."""
        self.mask.copy_(two_four_mask(self.weight))

    def effective_weight(self) -> Tensor:
        """The weight that is multiplied with; pruned once and kept while nothing trains."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return masked_weight(self.weight, self.mask)
        if self._pruned is None or self._pruned_version != self.weight._version:
            self._pruned = self.weight.detach() * self.mask
            self._pruned_version = self.weight._version
        return self._pruned

    @torch.no_grad()
    def to_int8(self) -> None:
        super().to_int8()
        self._pruned = None
