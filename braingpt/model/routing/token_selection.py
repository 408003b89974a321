"""Select, pack, compute, unpack: the primitive of sparsity over tokens.

A token is chosen when its own score passes a threshold that is fixed within a step, so the choice is causal
and does not depend on neighbours. A slow controller moves the threshold toward the quantile that gives the
wanted rate. Chosen tokens are packed to the front of each row, computed densely there, and scattered back.
Their results are multiplied by the score, so that the choice learns.

Legend: B batch, L tokens, C packed slots, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braingpt.model.sequence_layout import Layout

# Rates whose thresholds an adjustable selector follows.
ADJUSTABLE_RATES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
# Slots of whole sequences are a multiple of this, to keep shapes few.
SLOT_MULTIPLE = 16
# Tokens of a forward pass from which the quantiles are taken.
MOST_OBSERVED = 100_000


@dataclass
class Selection:
    """The chosen tokens of each row."""

    # (B, C) place of each packed token in its row.
    index: Tensor
    # (B, C) false in unused slots.
    valid: Tensor
    # (B,) tokens chosen in each row.
    count: Tensor

    @classmethod
    def of(cls, chosen_BL: Tensor, min_slots: int = 0) -> "Selection":
        """The chosen tokens of each row in their order.

        Args:
            chosen_BL: True where a token is chosen.
            min_slots: Smallest number of slots C. It is 1 in training, so that a step without a choice still
                has a (zero) gradient for every weight, and processes that share weights pass the same layers.

        Returns:
            A selection whose C is the largest count of a row, rounded up for whole sequences.
        """
        batch, length = chosen_BL.shape
        count = chosen_BL.sum(1)
        most = max(min_slots, int(count.max()))
        slots = min(length, -(-most // SLOT_MULTIPLE) * SLOT_MULTIPLE) if length > 1 else most
        rank = torch.where(chosen_BL, chosen_BL.cumsum(1) - 1, slots)
        places = torch.arange(length, device=chosen_BL.device).expand(batch, -1)
        index = torch.zeros(batch, slots + 1, dtype=torch.long, device=chosen_BL.device)
        index = index.scatter_(1, rank, places)[:, :slots]
        return cls(index, torch.arange(slots, device=chosen_BL.device) < count[:, None], count)

    def pack(self, x_BLD: Tensor) -> Tensor:
        """(B, L, ...) to (B, C, ...); unused slots hold some token of the row."""
        index = self.index.view(*self.index.shape, *(1 for _ in x_BLD.shape[2:]))
        return x_BLD.gather(1, index.expand(-1, -1, *x_BLD.shape[2:]))

    def unpack(self, y_BCD: Tensor, length: int) -> Tensor:
        """(B, C, D) to (B, L, D), zero where no token was chosen."""
        y_BCD = y_BCD * self.valid[..., None]
        index = self.index[..., None].expand_as(y_BCD)
        return y_BCD.new_zeros(y_BCD.shape[0], length, y_BCD.shape[2]).scatter_add(1, index, y_BCD)

    def pack_layout(self, layout: Layout) -> Layout:
        """The layout of the packed tokens; unused slots are padding."""
        batch = self.index.shape[0]
        position = self.pack(layout.position.expand(batch, -1))
        segment = layout.segment
        if segment is not None:
            segment = (self.pack(segment) * self.valid).cummax(1).values
        return Layout(position, None if bool(self.valid.all()) else self.valid, segment)


class Selector(nn.Module):
    """Scores tokens and chooses about `rate` of them.

    An `adjustable` selector also follows the thresholds of other rates, so that `set_rate` can choose more or
    fewer tokens later.
    """

    # Rates whose thresholds are followed, the trained one first.
    rates: Tensor
    # The threshold of each rate.
    levels: Tensor
    # Sums since the last step: wanted levels, standard deviation of logits, forward passes.
    observed: Tensor
    # Tokens chosen, and tokens, since the last step.
    counted: Tensor
    # The threshold of the rate that `set_rate` asked for.
    threshold: Tensor

    def __init__(self, hidden: int, rate: float, adjustable: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.randn(hidden) * hidden**-0.5)
        rates = torch.tensor([rate, *(ADJUSTABLE_RATES if adjustable else ())], dtype=torch.float64)
        self.register_buffer("rates", rates.float(), persistent=False)
        # Logits of a fresh model on normalised input are about standard normal: thresholds start at the
        # quantiles that give the rates.
        self.register_buffer("levels", torch.special.ndtri(1 - rates).float())
        self.register_buffer("observed", torch.zeros(len(rates) + 2), persistent=False)
        self.register_buffer("counted", torch.zeros(2), persistent=False)
        self.register_buffer("threshold", self.levels[0].clone(), persistent=False)
        self._requested_rate: float | None = None

    def forward(self, x_BLD: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """Score the tokens and choose some.

        Args:
            x_BLD: Hidden states.
            valid_BL: False at padding, which is never chosen; None: there is none.

        Returns:
            Scores in 0..1 and the choice, (B, L) each.
        """
        logit_BL = x_BLD @ self.weight.to(x_BLD.dtype)
        if self.training and torch.is_grad_enabled():
            real = logit_BL.detach() if valid_BL is None else logit_BL.detach()[valid_BL]
            if real.numel():
                some = real.flatten()[:MOST_OBSERVED].float()
                wanted = torch.quantile(some, 1 - self.rates.float())
                self.observed += torch.cat(
                    [wanted, torch.stack([some.std(correction=0), torch.ones_like(some[0])])]
                )
        chosen_BL = logit_BL > self.level
        chosen_BL = chosen_BL if valid_BL is None else chosen_BL & valid_BL
        if self.training and torch.is_grad_enabled():
            tokens = chosen_BL.numel() if valid_BL is None else valid_BL.sum()
            self.counted += torch.stack([chosen_BL.sum(), torch.as_tensor(tokens, device=chosen_BL.device)])
        return torch.sigmoid(logit_BL), chosen_BL

    @property
    def level(self) -> Tensor:
        """The threshold in use, a scalar."""
        return self.levels[0] if self._requested_rate is None else self.threshold

    def set_rate(self, rate: float | None) -> None:
        """Choose about `rate` of the tokens from now on, or the trained rate again (None).

        The selector must be adjustable.
        """
        self._requested_rate = rate
        if rate is not None:
            self.threshold.copy_(self._level(rate))

    def _level(self, rate: float) -> Tensor:
        """The threshold that gives `rate`, interpolated between those followed in training."""
        if rate >= 1:
            return self.levels.new_tensor(float("-inf"))
        order = self.rates.argsort()
        rates, levels = self.rates[order], self.levels[order]
        above = int((rates < rate).sum().clamp(1, len(rates) - 1))
        part = ((rate - rates[above - 1]) / (rates[above] - rates[above - 1])).clamp(0, 1)
        return levels[above - 1] + part * (levels[above] - levels[above - 1])

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the thresholds toward those that would have met the rates with this step's tokens.

        They move a tenth of the way, which averages over steps. Where a threshold is off by more than a fifth
        of the logits' deviation it moves further, because scores grow at the start of training.
        """
        if self.rate < 1 and self.observed[-1] > 0:
            mean = self.observed / self.observed[-1]
            gap, deviation = mean[:-2] - self.levels, mean[-2]
            self.levels += gap * (gap.abs() / (2 * deviation + 1e-6)).clamp(0.1, 1)
        self.observed.zero_()
        self.counted.zero_()
