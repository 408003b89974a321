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
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from braingpt.inference import choice
from braingpt.inference.choice import NO_CUTS, Adjustment, Cuts, cumulative_list, locate_in_list
from braingpt.model.heads.head import ClassedTokens

# Draws that may be refused before all classes are read.
ATTEMPTS = 32


class ReadClass(NamedTuple):
    """The tokens of a class: adjusted log-probabilities, ids, weights and cumulative weights."""

    log_S: Tensor
    ids_S: Tensor
    weight_S: Tensor
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
        mass_C = self._mass_C.clone()
        # Tokens up to this log-probability are no candidates.
        floor = -math.inf
        for _ in range(ATTEMPTS):
            number, rest = locate_in_list(cumulative_list(mass_C), uniform())
            found = self._class(number)
            weight_S, cumulative = found.weight_S, found.cumulative
            if floor > -math.inf:
                weight_S = weight_S * (found.log_S > floor)
                cumulative = cumulative_list(weight_S)
            if not rest < cumulative[-1]:
                mass_C[number] = cumulative[-1]
                continue
            place, _ = locate_in_list(cumulative, rest / cumulative[-1])
            log = float(found.log_S[place])
            if self.cuts == NO_CUTS or self.is_candidate(log):
                return int(found.ids_S[place])
            floor = log
            mass_C.masked_fill_(self.class_C <= floor, 0)
        every = [self._class(number) for number in range(len(self._order))]
        weight_1J, place_1J = choice.candidates(
            torch.cat([one.log_S for one in every])[None], self.temperature, self.cuts
        )
        place, _ = locate_in_list(cumulative_list(weight_1J[0]), uniform())
        return int(torch.cat([one.ids_S for one in every])[place_1J[0, place]])

    def is_candidate(self, log: float) -> bool:
        """Whether a token of a log-probability may be chosen; reads classes until that is certain."""
        while (answer := self._decide(log)) is None:
            self._class(next(self._unread(-math.inf))[0])
        return answer

    def _decide(self, log: float) -> bool | None:
        """Whether a token is a candidate; None if that depends on unread classes."""
        top_k, top_p, min_p = self.cuts
        log_K = torch.cat([one.log_S for one in self._read.values()])
        above_K = log_K > log
        # Only these classes may hold a likelier token.
        ahead = list(self._unread(log))
        certain = True
        if min_p is not None:
            least = log - self.temperature * math.log(min_p)
            if float(log_K.max()) > least:
                return False
            certain = next(self._unread(least), None) is None
        if top_k is not None:
            count = int(above_K.sum())
            if count >= top_k:
                return False
            # So many tokens likelier than this one have room in a class.
            room = sum(math.exp(min(bound - log, 50.0)) for _, bound in ahead)
            certain = certain and count + room < top_k
        if top_p is not None:
            weight_K = torch.cat([one.weight_S for one in self._read.values()])
            before = float((weight_K * above_K).sum(dtype=torch.float64))
            before_most = before + sum(self._masses[number] for number, _ in ahead)
            if top_k is None:
                total = sum(one.cumulative[-1] for one in self._read.values())
                # What is likelier than the token counts in both.
                least, most = total + before_most - before, total + self._unread_mass()
            else:
                best_J, place_J = log_K.topk(min(top_k, len(log_K)))
                least = float(weight_K[place_J].sum(dtype=torch.float64))
                last = float(best_J[-1]) if len(best_J) == top_k else -math.inf
                most = least + sum(self._masses[number] for number, _ in self._unread(last))
            if before >= top_p * most:
                return False
            certain = certain and before_most < top_p * least
        return True if certain else None

    @cached_property
    def _mass_C(self) -> Tensor:
        """What each class weighs at most."""
        # At temperatures above 1 a class has its largest weight when its tokens are equally likely.
        spread = max(0.0, (1 - 1 / self.temperature) * math.log(self.next_tokens.width))
        return ((self.class_C.double() - self._top) / self.temperature + spread).exp()

    @cached_property
    def _masses(self) -> list[float]:
        return self._mass_C.tolist()

    def _unread(self, log: float) -> Iterator[tuple[int, float]]:
        """Unread classes above a log-probability, and their own, in falling order."""
        for number, bound in zip(self._order, self._bounds, strict=True):
            if bound <= log:
                break
            if number not in self._read:
                yield number, bound

    def _unread_mass(self) -> float:
        """What unread classes weigh together at most."""
        if len(self._read) == len(self._order):
            return 0.0
        return max(0.0, sum(self._masses) - sum(self._masses[number] for number in self._read))

    def _class(self, number: int) -> ReadClass:
        """A class, read once."""
        if number not in self._read:
            log_S, ids_S = self._log_probs(number)
            weight_S = ((log_S - self._top) / self.temperature).exp()
            self._read[number] = ReadClass(log_S, ids_S, weight_S, cumulative_list(weight_S))
        return self._read[number]

    def _log_probs(self, number: int) -> tuple[Tensor, Tensor]:
        log_S, ids_S = self.next_tokens.words(self.row, number)
        return self.adjustment.of_class(log_S + self.class_C[number], self.row, number, ids_S), ids_S
