"""The next token from a distribution over classes of tokens, reading no more classes than the choice needs.

p(token) = p(class) p(token | class), so no token of a class is likelier than the class itself.

(1) The likeliest token: classes are read in falling probability until the best token found is likelier than
    the next class.
(2) A draw: a class is drawn in proportion to a bound of its weight. It is read, accepted with the probability
    weight / bound, and otherwise its weight is the bound from then on.
(3) Top-k, top-p, min-p: whether a drawn token is a candidate is decided from the classes likelier than it, as
    far as they must be read; one that is not is drawn again. Tokens as likely as the last candidate are
    candidates too.

All are exact, whatever the temperature. Each row is searched alone: it draws what it draws in any batch.

Legend: C classes, S tokens of a class, K tokens read.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from braingpt.inference import choice
from braingpt.inference.choice import BELOW_1, NO_CUTS, Adjustment, Cuts
from braingpt.model.heads.head import ClassedTokens

# Draws that may be refused before all classes are read.
ATTEMPTS = 32


class ReadClass(NamedTuple):
    """The tokens of a class that was read."""

    # Adjusted log-probabilities.
    log_S: Tensor
    ids_S: Tensor
    weight_S: Tensor
    # Cumulative weights.
    cumulative: list[float]


class ClassSearch:
    """Chooses the next token of one row.

    A token's weight is its probability to the power 1 / temperature, in units of that of the likeliest class.

    Args:
        next_tokens: The distribution.
        row: The row.
        adjustment: What changes log-probabilities before the choice; none becomes larger.
        temperature: Above 0.
        cuts: Which tokens may be chosen.
    """

    def __init__(
        self,
        next_tokens: ClassedTokens,
        row: int,
        adjustment: Adjustment,
        temperature: float = 1.0,
        cuts: Cuts = NO_CUTS,
    ) -> None:
        self.next_tokens, self.row, self.adjustment = next_tokens, row, adjustment
        self.temperature, self.cuts = temperature, cuts
        self.class_C = next_tokens.class_log_probs(row)
        # Classes in falling probability, and their log-probabilities.
        bound_C, order_C = self.class_C.sort(descending=True)
        self._bounds: list[float] = bound_C.tolist()
        self._order: list[int] = order_C.tolist()
        self._top = self._bounds[0]
        if math.isnan(self._top):
            raise choice.nan_failure()
        # At temperatures above 1 a class has its largest weight when its tokens are equally likely.
        self._spread = max(0.0, (1 - 1 / temperature) * math.log(next_tokens.width))
        self._mass: list[float] | None = None
        self._read: dict[int, ReadClass] = {}

    def likeliest(self) -> int:
        """The likeliest token. Raises Failure for NaN."""
        best, token = -math.inf, 0
        for bound, number in zip(self._bounds, self._order, strict=True):
            if best >= bound:
                break
            log_S, ids_S = self._log_probs(number)
            place = int(log_S.argmax())
            log = float(log_S[place])
            if math.isnan(log):
                raise choice.nan_failure()
            if log > best:
                best, token = log, int(ids_S[place])
        return token

    def draw(self, uniform: Callable[[], float]) -> int:
        """Draw one of the candidates in proportion to its weight.

        Args:
            uniform: A fresh number in [0, 1).

        Returns:
            The token.

        Raises:
            Failure: Probabilities are NaN.
        """
        mass_C = ((self.class_C.double() - self._top) / self.temperature + self._spread).exp()
        # Tokens up to this log-probability are no candidates.
        floor = -math.inf
        for _ in range(ATTEMPTS):
            number, rest = _locate(mass_C.cumsum(0).tolist(), uniform())
            found = self._class(number)
            weight_S, cumulative = found.weight_S, found.cumulative
            if floor > -math.inf:
                weight_S = weight_S * (found.log_S > floor)
                cumulative = weight_S.cumsum(0).tolist()
            if not rest < cumulative[-1]:
                mass_C[number] = cumulative[-1]
                continue
            place, _ = _locate(cumulative, rest / cumulative[-1])
            log = float(found.log_S[place])
            if self.cuts == NO_CUTS or self.is_candidate(log):
                return int(found.ids_S[place])
            floor = log
            mass_C.masked_fill_(self.class_C <= floor, 0)
        every = [self._class(number) for number in range(len(self._order))]
        weight_1J, place_1J = choice.candidates(
            torch.cat([one.log_S for one in every])[None], self.temperature, self.cuts
        )
        place, _ = _locate(weight_1J[0].cumsum(0, dtype=torch.float64).tolist(), uniform())
        return int(torch.cat([one.ids_S for one in every])[place_1J[0, place]])

    def is_candidate(self, log: float) -> bool:
        """Whether a token may be chosen, reading further classes until that is certain.

        Args:
            log: Its adjusted log-probability.
        """
        # Places in falling probability, of which the last is the next to be read.
        unread = [place for place, number in enumerate(self._order) if number not in self._read]
        unread.reverse()
        while (answer := self._decide(log, unread)) is None:
            self._class(self._order[unread.pop()])
        return answer

    def _decide(self, log: float, unread: list[int]) -> bool | None:
        """Whether a token is a candidate; None if that depends on unread classes."""
        top_k, top_p, min_p = self.cuts
        log_K = torch.cat([one.log_S for one in self._read.values()])
        weight_K = torch.cat([one.weight_S for one in self._read.values()])
        above_K = log_K > log
        ahead = [place for place in unread if self._bounds[place] > log]
        certain = True
        if min_p is not None:
            least = log - self.temperature * math.log(min_p)
            if float(log_K.max()) > least:
                return False
            certain = not unread or self._bounds[unread[-1]] <= least
        if top_k is not None:
            count = int(above_K.sum())
            if count >= top_k:
                return False
            # So many tokens likelier than this one have room in a class.
            room = sum(math.exp(min(self._bounds[place] - log, 50.0)) for place in ahead)
            certain = certain and count + room < top_k
        if top_p is not None:
            before = float((weight_K * above_K).sum())
            masses = self._masses()
            before_most = before + sum(masses[place] for place in ahead)
            if top_k is None:
                total = float(weight_K.sum())
                # What is likelier than the token counts in both.
                least, most = total + before_most - before, total + sum(masses[place] for place in unread)
            else:
                best_J, place_J = log_K.topk(min(top_k, len(log_K)))
                least = float(weight_K[place_J].sum())
                last = float(best_J[-1]) if len(best_J) == top_k else -math.inf
                most = least + sum(masses[place] for place in unread if self._bounds[place] > last)
            if before >= top_p * most:
                return False
            certain = certain and before_most < top_p * least
        return True if certain else None

    def _masses(self) -> list[float]:
        """Bounds of the classes' weights, in falling order."""
        if self._mass is None:
            self._mass = [
                math.exp((bound - self._top) / self.temperature + self._spread) for bound in self._bounds
            ]
        return self._mass

    def _class(self, number: int) -> ReadClass:
        """A class, read once."""
        if number not in self._read:
            log_S, ids_S = self._log_probs(number)
            weight_S = ((log_S.double() - self._top) / self.temperature).exp()
            self._read[number] = ReadClass(log_S, ids_S, weight_S, weight_S.cumsum(0).tolist())
        return self._read[number]

    def _log_probs(self, number: int) -> tuple[Tensor, Tensor]:
        """Adjusted log-probabilities (S,) and ids (S,) of the tokens of a class."""
        log_S, ids_S = self.next_tokens.words(self.row, number)
        return self.adjustment.of_some(log_S + self.class_C[number], self.row, ids_S), ids_S


def _locate(cumulative: list[float], share: float) -> tuple[int, float]:
    """The first place whose cumulative weight exceeds a share of the total, and what is left there."""
    at = min(share, BELOW_1) * cumulative[-1]
    place = min(bisect_right(cumulative, at), len(cumulative) - 1)
    return place, at - (cumulative[place - 1] if place else 0.0)
