"""Who wins a token: columns score it, inhibit each other, and the strongest few are named.

Both column layers use it, for ten columns as for thousands.

Up to `PAIRWISE` columns every pair has its own learned inhibition. Beyond, that matrix would outgrow the
columns (2,000 squared is 4M weights, all active): there columns excite a few interneurons, which inhibit
columns, as the cortex's basket cells pool what they hear and spread it (Isaacson & Scanziani 2011, "How
inhibition shapes cortical activity"). That is a non-negative matrix of low rank. None inhibits itself.

Legend: N tokens, E columns, A winners a token, R interneurons, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.columns.columns import Pairs
from braingpt.kernels.competition.competition import WinnersDrive, compete, inhibited, logits, operand_type
from braingpt.model.config import ColumnsConfig
from braingpt.model.layers import Linear

# columns up to which each pair has an inhibition of its own
PAIRWISE = 128
INTERNEURONS = 8
# steps without a win after which a column starts anew
REVIVE_AFTER = 100
# what all columns together inhibit one by, at first: a tenth of a full column
STRENGTH = 0.1
# How far, in logits, one step moves a column's bias toward an even load (Wang et al. 2024,
# auxiliary-loss-free balancing): faster where columns are many, for each then wins so few tokens a step that
# the load is mostly luck.
BALANCE_RATE, BALANCE_RATE_MANY = 0.015, 0.06


class Competition(nn.Module):
    """Scores columns, lets them inhibit each other, and names the winners of each token."""

    def __init__(self, hidden: int, columns: ColumnsConfig) -> None:
        super().__init__()
        self.active, self.rounds = columns.active, columns.rounds
        self.rate = BALANCE_RATE if columns.count <= PAIRWISE else BALANCE_RATE_MANY
        self.router = Linear(hidden, columns.count)
        if columns.count <= PAIRWISE:
            start = torch.full((columns.count, columns.count), STRENGTH / columns.count)
        else:
            # to the interneurons and back; unequal, or all interneurons would learn the same
            mean = (STRENGTH / columns.count / INTERNEURONS) ** 0.5
            start = mean * (0.5 + torch.rand(2, columns.count, INTERNEURONS))
        # softplus of it is the inhibition: never negative
        self.inhibition = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        self.register_buffer("bias", torch.zeros(columns.count))
        # steps without a win
        self.register_buffer("idle", torch.zeros(columns.count))
        self.register_buffer("load", torch.zeros(columns.count), persistent=False)
        self.register_buffer("_kept", None, persistent=False)
        self._kept_version = -1
        # what it makes of its inhibition while nothing trains
        self.keeps = True

    def forward(self, x_ND: Tensor, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor, Pairs | None]:
        """Winners (N, A), their shares (N, A), which sum to one, and, while learning, the pairs of both
        sorted by column.

        The balance bias decides with, but does not weigh. The losers' logits learn nothing: their pull
        through the inhibition is left out of the gradient, which makes the backward pass a matter of the
        winners alone (A numbers a token in place of E).
        """
        weight_ED, pairs = self.router.weight, None
        x_ND = x_ND.to(operand_type(x_ND, weight_ED))
        # in bfloat16 the strongest of thousands of columns would tie
        with torch.autocast(x_ND.device.type, enabled=False):
            strength, learning = self._positive(), torch.is_grad_enabled()
            with torch.no_grad():
                logit_NE = logits(x_ND, weight_ED)
                winner_NA, drive_NA, excited_NE, pooled_NR = compete(
                    logit_NE, strength, self.bias, self.rounds, self.active, x_ND.dtype, learning
                )
            if learning:
                pairs = Pairs.of(winner_NA, len(weight_ED))
                drive_NA = WinnersDrive.apply(
                    x_ND, weight_ED, strength, drive_NA, winner_NA, excited_NE, pooled_NR, pairs
                )
            score_NA = torch.sigmoid(drive_NA)
        if self.training and learning:
            if valid_N is None:
                self.load += pairs.start.diff()
            else:
                self.load.scatter_add_(
                    0, winner_NA.flatten(), valid_N.to(self.load.dtype).repeat_interleave(self.active)
                )
        return winner_NA, score_NA / score_NA.sum(-1, keepdim=True) if self.active > 1 else score_NA, pairs

    def _positive(self) -> Tensor:
        """The inhibition's weights, none of them negative and none of a column on itself; made once and kept
        while nothing trains.
        """
        if torch.is_grad_enabled() or not self.keeps:
            return self._made()
        # a step of generation: reading the prompt has renewed it
        if torch.compiler.is_compiling() and self._kept is not None:
            return self._kept
        if (
            self._kept is None
            or self._kept_version != self.inhibition._version
            or self._kept.dtype != self.inhibition.dtype
        ):
            self._kept, self._kept_version = self._made(), self.inhibition._version
        return self._kept

    def _made(self) -> Tensor:
        strength = F.softplus(self.inhibition)
        return (
            strength * (1 - torch.eye(len(strength), device=strength.device))
            if strength.shape[0] == strength.shape[1]
            else strength
        )

    def strength(self) -> Tensor:
        """(E, E) how strongly each column inhibits each other one.

        For looking at; it is never formed where columns are many.
        """
        return inhibited(
            torch.eye(len(self.bias), dtype=self.inhibition.dtype, device=self.inhibition.device),
            self._positive(),
        )[0]

    @torch.no_grad()
    def after_step(self) -> None:
        """Raise the bias of columns that won less than their even share of this step's tokens, lower that of
        the others.

        The bias adds to logits, not to the sigmoid's value: near the top of thousands the sigmoid is flat,
        and the same step would move the load ten times as far.
        """
        self.bias += self.rate * torch.sign(self.load.mean() - self.load)
        self.bias -= self.bias.mean()
        # a step without tokens counts for nothing
        self.idle.add_(self.load.any()).mul_(self.load == 0)
        self.load.zero_()

    def dead(self) -> Tensor:
        """The columns that have not won for `REVIVE_AFTER` steps."""
        return (self.idle >= REVIVE_AFTER).nonzero()[:, 0]

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        return self.router.weight.numel() + self.inhibition.numel()

    def flops(self) -> int:
        """Forward operations a token: the router once, the inhibition in each round."""
        return 2 * (self.router.weight.numel() + self.rounds * self.inhibition.numel())
