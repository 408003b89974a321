"""The competition of columns for tokens: columns score a token, inhibit each other, and the strongest win.

Both column layers use it, for ten columns and for thousands.

Up to `PAIRWISE` columns, every pair has its own learned inhibition. With more columns, such a matrix would
outgrow the columns (2,000 squared is 4M weights, all active). Columns then excite a few interneurons, which
inhibit columns: a non-negative matrix of low rank. Basket cells of the cortex likewise pool their inputs and
spread the sum (Isaacson & Scanziani 2011, "How inhibition shapes cortical activity"). No column inhibits
itself.

Legend: N tokens, E columns, A winners a token, R interneurons, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.competition.competition import compete, logits, operand_type
from braingpt.kernels.competition.gradients import WinnersDrive
from braingpt.kernels.competition.reference import inhibited
from braingpt.model.config import ColumnsConfig
from braingpt.model.layers import Linear

# Columns up to which each pair has an inhibition of its own.
PAIRWISE = 128
INTERNEURONS = 8
# Steps without a win after which a column starts again.
REVIVE_AFTER = 100
# Inhibition of a fresh column by all others together: a tenth of a full column.
STRENGTH = 0.1
# How far, in logits, one step moves a column's bias toward an even load (Wang et al. 2024,
# auxiliary-loss-free balancing). It is faster where columns are many: each then wins so few tokens a step
# that its load is mostly chance.
BALANCE_RATE, BALANCE_RATE_MANY = 0.015, 0.06


class Competition(nn.Module):
    """Scores columns, lets them inhibit each other, and gives the winners of each token."""

    # Added to the logits for the choice of winners only: raises columns that win little.
    bias: Tensor
    # Steps without a win.
    idle: Tensor
    # Tokens won since the last step.
    load: Tensor
    _kept: Tensor | None

    def __init__(self, hidden: int, columns: ColumnsConfig) -> None:
        super().__init__()
        self.active, self.rounds = columns.active, columns.rounds
        self.rate = BALANCE_RATE if columns.count <= PAIRWISE else BALANCE_RATE_MANY
        self.router = Linear(hidden, columns.count)
        if columns.count <= PAIRWISE:
            start = torch.full((columns.count, columns.count), STRENGTH / columns.count)
        else:
            # To the interneurons and back. Equal interneurons would all learn the same.
            mean = (STRENGTH / columns.count / INTERNEURONS) ** 0.5
            start = mean * (0.5 + torch.rand(2, columns.count, INTERNEURONS))
        # Its softplus is the inhibition, which is never negative.
        self.inhibition = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        self.register_buffer("bias", torch.zeros(columns.count))
        self.register_buffer("idle", torch.zeros(columns.count))
        self.register_buffer("load", torch.zeros(columns.count), persistent=False)
        self.register_buffer("_kept", None, persistent=False)
        self._kept_version = -1
        # Whether the inhibition is kept while nothing trains; false for sharded weights.
        self.keeps = True

    def forward(self, x_ND: Tensor, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor, Pairs | None]:
        """The winners of each token.

        The balance bias has a part in the choice, but not in the shares. The losers' logits learn nothing:
        their effect through the inhibition is left out of the gradient, so that the backward pass needs the
        winners only (A numbers a token instead of E).

        Args:
            x_ND: Normalised hidden states.
            valid_N: False at tokens that do not count for the load; None: all count.

        Returns:
            Winners (N, A); their shares (N, A), which sum to one unless there is a single winner; and, with
            gradients, the pairs of token and winner sorted by column.
        """
        weight_ED, pairs = self.router.weight, None
        x_ND = x_ND.to(operand_type(x_ND, weight_ED))
        # In bfloat16 the strongest of thousands of columns would tie.
        with torch.autocast(x_ND.device.type, enabled=False):
            strength, learning = self.inhibition_weights(), torch.is_grad_enabled()
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
        if self.training and pairs is not None:
            if valid_N is None:
                self.load += pairs.start.diff()
            else:
                self.load.scatter_add_(
                    0, winner_NA.flatten(), valid_N.to(self.load.dtype).repeat_interleave(self.active)
                )
        return winner_NA, score_NA / score_NA.sum(-1, keepdim=True) if self.active > 1 else score_NA, pairs

    def inhibition_weights(self) -> Tensor:
        """The weights of inhibition, none negative or of a column on itself; kept while nothing trains."""
        if torch.is_grad_enabled() or not self.keeps:
            return self._compute_inhibition()
        # A compiled step of generation: reading the prompt has renewed it.
        if torch.compiler.is_compiling() and self._kept is not None:
            return self._kept
        if (
            self._kept is None
            or self._kept_version != self.inhibition._version
            or self._kept.dtype != self.inhibition.dtype
        ):
            self._kept, self._kept_version = self._compute_inhibition(), self.inhibition._version
        return self._kept

    def _compute_inhibition(self) -> Tensor:
        strength = F.softplus(self.inhibition)
        if strength.shape[0] == strength.shape[1]:
            return strength * (1 - torch.eye(len(strength), device=strength.device))
        return strength

    def strength(self) -> Tensor:
        """(E, E) how strongly each column inhibits each other one, for inspection.

        Neither training nor generation forms this matrix where columns are many.
        """
        weights = self.inhibition_weights()
        each = torch.eye(len(self.bias), dtype=self.inhibition.dtype, device=self.inhibition.device)
        return inhibited(each, weights)[0]

    @torch.no_grad()
    def after_step(self) -> None:
        """Raise the bias of columns that won less than their even share of this step's tokens, and lower that
        of the others.

        The bias is added to logits, not to the sigmoid's value: near the top of thousands of columns the
        sigmoid is flat, and the same step would move the load ten times as far.
        """
        self.bias += self.rate * torch.sign(self.load.mean() - self.load)
        self.bias -= self.bias.mean()
        # A step without tokens does not count.
        self.idle.add_(self.load.any()).mul_(self.load == 0)
        self.load.zero_()

    def dead(self) -> Tensor:
        """The columns that have not won for `REVIVE_AFTER` steps."""
        return (self.idle >= REVIVE_AFTER).nonzero()[:, 0]

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.router.weight.numel() + self.inhibition.numel()

    def flops(self) -> int:
        """Forward operations a token: the router once, the inhibition in each round."""
        return 2 * (self.router.weight.numel() + self.rounds * self.inhibition.numel())
