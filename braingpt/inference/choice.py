"""Which tokens may be chosen, and one of them by chance: temperature, top-k, top-p and min-p over the
log-probabilities of all tokens.

A token's weight is its probability to the power 1 / temperature, in units of the likeliest token's. Weights
are summed in float64, because sums over 16k tokens in float32 would lose the tail.

Legend: B rows, V vocabulary, S tokens of a class, J tokens sorted.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from braingpt.errors import Failure

# Tokens that are sorted at first, where top-k does not say how many: the candidates are rarely more.
SORTED = 1024
# The largest number below 1.
BELOW_1 = 1 - 2**-53


class Cuts(NamedTuple):
    """Which tokens are candidates; None: no cut of this kind."""

    # The likeliest tokens, this many.
    top_k: int | None = None
    # Of these the fewest tokens that hold this share of the weight.
    top_p: float | None = None
    # The tokens with at least this share of the likeliest one's weight.
    min_p: float | None = None


NO_CUTS = Cuts()


@dataclass
class Adjustment:
    """What is changed in log-probabilities before a choice."""

    # At least 1; the log-probabilities of seen tokens are multiplied with it.
    penalty: float = 1.0
    seen_BV: Tensor | None = None
    # Tokens that are never chosen.
    banned_V: Tensor | None = None
    # Which tokens of each class that was asked for are banned; None: none.
    _banned: dict[int, Tensor | None] = field(default_factory=dict)

    def of_all(self, logits_BV: Tensor) -> Tensor:
        """Adjusted log-probabilities of all tokens, up to a constant of each row."""
        log_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
        if self.seen_BV is not None:
            log_BV = log_BV.log_softmax(1)
            log_BV = torch.where(self.seen_BV, log_BV * self.penalty, log_BV)
        return log_BV if self.banned_V is None else log_BV.masked_fill(self.banned_V, -torch.inf)

    def of_class(self, log_S: Tensor, row: int, number: int, ids_S: Tensor) -> Tensor:
        """Adjusted log-probabilities of a row's tokens in a class, which are the same ones at every call."""
        if self.seen_BV is not None:
            log_S = torch.where(self.seen_BV[row, ids_S], log_S * self.penalty, log_S)
        if self.banned_V is None:
            return log_S
        if number not in self._banned:
            banned_S = self.banned_V[ids_S]
            self._banned[number] = banned_S if banned_S.any() else None
        # Few classes hold banned tokens.
        banned_S = self._banned[number]
        return log_S if banned_S is None else log_S.masked_fill(banned_S, -torch.inf)


def likeliest(log_BV: Tensor) -> Tensor:
    """The likeliest token (B,). Raises Failure for NaN."""
    check_numbers(log_BV.amax(1))
    return log_BV.argmax(1)


def draw(log_BV: Tensor, temperature: float, uniform_B1: Tensor) -> Tensor:
    """Draw a token of each row in proportion to its weight.

    Args:
        log_BV: Log-probabilities, up to a constant of each row.
        temperature: Above 0.
        uniform_B1: A number in [0, 1) a row.

    Returns:
        Ids (B,).

    Raises:
        Failure: A log-probability is NaN.
    """
    # A temperature near zero overflows unless the largest is subtracted first.
    top_B1 = check_numbers(log_BV.amax(1, keepdim=True))
    return locate(((log_BV - top_B1) / temperature).softmax(1), uniform_B1)[:, 0]


def candidates(log_BV: Tensor, temperature: float, cuts: Cuts) -> tuple[Tensor, Tensor]:
    """Find the tokens that may be chosen.

    Args:
        log_BV: Log-probabilities, up to a constant of each row.
        temperature: Above 0.
        cuts: Which tokens may be chosen.

    Returns:
        Weights (B, J) in falling order, 0 behind the last candidate; and the tokens' ids.

    Raises:
        Failure: A log-probability is NaN.
    """
    top_B1 = check_numbers(log_BV.amax(1, keepdim=True))
    total_B1 = None
    if cuts.top_p is not None and cuts.top_k is None:
        total_B1 = ((log_BV - top_B1) / temperature).exp().sum(1, keepdim=True, dtype=torch.float64)
    vocab = log_BV.shape[1]
    size = min(cuts.top_k or SORTED, vocab)
    while True:
        log_BJ, ids_BJ = log_BV.topk(size, 1)
        weight_BJ = ((log_BJ - top_B1) / temperature).exp()
        kept_BJ = weight_BJ > 0
        if cuts.min_p is not None:
            kept_BJ &= weight_BJ >= cuts.min_p
        if cuts.top_p is not None:
            cumulative_BJ = weight_BJ.cumsum(1, dtype=torch.float64)
            whole_B1 = cumulative_BJ[:, -1:] if total_B1 is None else total_B1
            # The weight of all likelier tokens: the first is always kept.
            kept_BJ &= cumulative_BJ - weight_BJ < cuts.top_p * whole_B1
        if size == vocab or cuts.top_k is not None or not kept_BJ[:, -1].any():
            return weight_BJ * kept_BJ, ids_BJ
        size = min(4 * size, vocab)


def locate(weight_BK: Tensor, share_B1: Tensor) -> Tensor:
    """Find a share of the total in cumulative weights.

    Args:
        weight_BK: Weights, at least 0, one of each row above 0.
        share_B1: A number in [0, 1) a row.

    Returns:
        The first place (B, 1) whose cumulative weight exceeds the share, so that one of weight 0 is never
        found.
    """
    cumulative_BK = weight_BK.cumsum(1, dtype=torch.float64)
    total_B1 = cumulative_BK[:, -1:]
    # Rounding may give the total itself, which no place exceeds.
    at_B1 = torch.minimum(share_B1 * total_B1, total_B1 * BELOW_1)
    return torch.searchsorted(cumulative_BK, at_B1, right=True)


def cumulative_list(weight_K: Tensor) -> list[float]:
    """Cumulative weights of one row, for `locate_in_list`."""
    return weight_K.cumsum(0, dtype=torch.float64).tolist()


def locate_in_list(cumulative: list[float], share: float) -> tuple[int, float]:
    """As `locate` for one row, and what is left of the weight there."""
    at = min(share, BELOW_1) * cumulative[-1]
    place = min(bisect_right(cumulative, at), len(cumulative) - 1)
    return place, at - (cumulative[place - 1] if place else 0.0)


def check_numbers(log: Tensor) -> Tensor:
    """The same log-probabilities. Raises Failure for NaN, which a choice would hide."""
    if log.isnan().any():
        raise nan_failure()
    return log


def nan_failure() -> Failure:
    """The error of a model whose weights are broken."""
    return Failure(
        "the model's logits are not numbers (NaN): its weights are broken; use an earlier checkpoint"
    )
