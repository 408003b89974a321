"""The next token from a distribution over classes of tokens, reading no more classes than the choice needs.

p(token) = p(class) p(token | class), so no token of a class is likelier than the class itself. Classes are
read in falling probability until no unread class can change the choice (`candidates`). Where every token may
be drawn (`draw`), a class is drawn first, in proportion to a bound of its share: it is accepted with the
probability share / bound, and its share is exact from then on. Both are exact, whatever the temperature; a
head without classes has a single one, which is always read.

Logarithms are in float64, because sums over 16k tokens in float32 would lose the tail.

Legend: B rows, N rows that still search, C classes, S tokens a class, K tokens read.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from braingpt.errors import Failure
from braingpt.model.heads.head import NextTokens


class ClassSearch:
    """What is known of the next token of each row: bounds of unread classes, and the tokens of the others.

    A token's weight is its probability to the power `sharpness`; a token that was seen before has its
    log-probability multiplied with `penalty`, a banned one has none.

    Args:
        next_tokens: The distribution.
        sharpness: One over the temperature, above 0.
        penalty: At least 1.
        seen_BV: Tokens to which the penalty applies; None: none.
        banned: Ids of tokens that are never chosen; None: none.
    """

    def __init__(
        self,
        next_tokens: NextTokens,
        sharpness: float,
        penalty: float = 1.0,
        seen_BV: Tensor | None = None,
        banned: Tensor | None = None,
    ) -> None:
        self.next_tokens, self.sharpness = next_tokens, sharpness
        self.penalty, self.seen_BV, self.banned = penalty, seen_BV, banned
        self.class_BC = next_tokens.class_log_probs().double()
        # Log weight of the likeliest token that a class may hold.
        self.token_bound_BC = sharpness * self.class_BC
        # Log weight of all tokens of a class: at most this; for a sharpness below 1 when they are equally
        # likely.
        spread = max(0.0, (1 - sharpness) * math.log(next_tokens.width))
        self.mass_BC = self.token_bound_BC + spread
        self.plain = sharpness == 1 and seen_BV is None and banned is None
        self.exact_BC = torch.full_like(self.mass_BC, self.plain, dtype=torch.bool)

    def read(self, row_N: Tensor, class_N: Tensor) -> tuple[Tensor, Tensor]:
        """Read a class for each of some rows.

        Returns:
            Log weights (N, S) and ids (N, S) of the tokens.

        Raises:
            Failure: Probabilities are NaN, which a choice would hide.
        """
        log_NS, ids_NS = self.next_tokens.words(row_N, class_N)
        log_NS = log_NS.double() + self.class_BC[row_N, class_N][:, None]
        if self.seen_BV is not None:
            log_NS = torch.where(self.seen_BV[row_N].gather(1, ids_NS), log_NS * self.penalty, log_NS)
        if self.banned is not None:
            log_NS = log_NS.masked_fill(torch.isin(ids_NS, self.banned), -torch.inf)
        log_NS = log_NS * self.sharpness
        mass_N = log_NS.logsumexp(1)
        if torch.isnan(mass_N).any():
            raise Failure(
                "the model's logits are not numbers (NaN): its weights are broken; use an earlier checkpoint"
            )
        self.mass_BC[row_N, class_N], self.exact_BC[row_N, class_N] = mass_N, True
        return log_NS, ids_NS

    def draw(self, uniform: Callable[[Tensor], Tensor]) -> Tensor:
        """Draw a token of each row in proportion to its weight.

        Args:
            uniform: For row numbers (N,), a fresh number in [0, 1) for each (N, 1).

        Returns:
            Ids (B,).
        """
        rows_N = torch.arange(len(self.class_BC), device=self.class_BC.device)
        token_B = torch.zeros_like(rows_N)
        if self.class_BC.shape[1] == 1:
            self.read(rows_N, token_B)
        while len(rows_N):
            mass_NC = self.mass_BC[rows_N]
            largest_N1 = mass_NC.amax(1, keepdim=True)
            weight_NC = (mass_NC - largest_N1).exp()
            class_N1, rest_N1 = locate(weight_NC, uniform(rows_N))
            class_N = class_N1[:, 0]
            was_exact_N1 = self.exact_BC[rows_N, class_N][:, None]
            log_NS, ids_NS = self.read(rows_N, class_N)
            weight_NS = (log_NS - largest_N1).exp()
            share_N1 = weight_NS.sum(1, keepdim=True)
            # A share known before is met again up to rounding.
            rest_N1 = torch.where(was_exact_N1, rest_N1 * share_N1 / weight_NC.gather(1, class_N1), rest_N1)
            accepted_N = (was_exact_N1 | (rest_N1 < share_N1))[:, 0]
            place_N1, _ = locate(weight_NS, rest_N1 / share_N1)
            chosen_N = ids_NS.gather(1, place_N1)[:, 0]
            token_B[rows_N[accepted_N]] = chosen_N[accepted_N]
            rows_N = rows_N[~accepted_N]
        return token_B

    def candidates(
        self, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Tensor, Tensor]:
        """Read classes until it is certain which tokens may be chosen.

        Args:
            top_k: The likeliest tokens, this many; None: all.
            top_p: The fewest tokens with this share of the weight; None: all.
            min_p: The tokens with at least this share of the likeliest one's weight; None: all.

        Returns:
            Log weights (B, K) in falling order, -inf behind the last candidate; and the tokens' ids.
        """
        rows, classes = self.class_BC.shape
        bound_BC, order_BC = self.token_bound_BC.sort(1, descending=True)
        nothing = torch.full_like(bound_BC[:, :1], -torch.inf)
        next_BC = torch.cat([bound_BC[:, 1:], nothing], 1)
        rows_N = torch.arange(rows, device=bound_BC.device)
        logs: list[Tensor] = []
        ids: list[Tensor] = []
        for read in range(classes):
            log_BS = torch.full((rows, self.next_tokens.width), -torch.inf, dtype=bound_BC.dtype)
            log_BS, ids_BS = log_BS.to(bound_BC.device), torch.zeros_like(log_BS, dtype=torch.long)
            log_BS[rows_N], ids_BS[rows_N] = self.read(rows_N, order_BC[rows_N, read])
            logs.append(log_BS)
            ids.append(ids_BS)
            log_BS = torch.cat(logs, 1)
            log_BK, place_BK = log_BS.topk(min(top_k or log_BS.shape[1], log_BS.shape[1]), 1)
            count_B, certain_B = self._count(log_BK, next_BC[:, read, None], top_k, top_p, min_p)
            rows_N = (~certain_B).nonzero()[:, 0]
            if not len(rows_N):
                break
        kept_BK = torch.arange(log_BK.shape[1], device=log_BK.device) < count_B[:, None]
        return log_BK.masked_fill(~kept_BK, -torch.inf), torch.cat(ids, 1).gather(1, place_BK)

    def _count(
        self, log_BK: Tensor, next_B1: Tensor, top_k: int | None, top_p: float | None, min_p: float | None
    ) -> tuple[Tensor, Tensor]:
        """How many of the sorted tokens are candidates (B,), and whether no unread token can change that
        (B,).

        Tokens above the bound of the unread ones have their final place. Behind them stands a token as likely
        as the bound: if the candidates end before it, they end there whatever is unread.
        """
        final_B1 = (log_BK >= next_B1).sum(1, keepdim=True)
        place_K = torch.arange(log_BK.shape[1] + 1, device=log_BK.device)
        sorted_BK = torch.cat([log_BK, torch.full_like(next_B1, -torch.inf)], 1)
        sorted_BK = torch.where(place_K < final_B1, sorted_BK, next_B1)
        least_B = most_B = (place_K < (top_k or len(place_K))).sum().expand(len(log_BK))
        if min_p is not None:
            above_B = (sorted_BK >= log_BK[:, :1] + math.log(min_p)).sum(1)
            least_B, most_B = torch.minimum(least_B, above_B), torch.minimum(most_B, above_B)
        if top_p is not None:
            weight_BK = (sorted_BK - log_BK[:, :1]).exp()
            before_BK = weight_BK.cumsum(1) - weight_BK
            low_B1, high_B1 = self._totals(log_BK, top_k)
            least_B = torch.minimum(least_B, (before_BK < top_p * low_B1).sum(1))
            most_B = torch.minimum(most_B, (before_BK < top_p * high_B1).sum(1))
        certain_B = (least_B == most_B) & (most_B <= final_B1[:, 0]) | (next_B1 == -torch.inf)[:, 0]
        return most_B, certain_B

    def _totals(self, log_BK: Tensor, top_k: int | None) -> tuple[Tensor, Tensor]:
        """Lower and upper bound (B, 1) of the weight that top-p is a share of, in units of the largest
        token's.
        """
        if top_k is not None:
            total_B1 = (log_BK - log_BK[:, :1]).exp().sum(1, keepdim=True)
            return total_B1, total_B1
        mass_BC = (self.mass_BC - log_BK[:, :1]).exp()
        return (mass_BC * self.exact_BC).sum(1, keepdim=True), mass_BC.sum(1, keepdim=True)


def locate(weight_NK: Tensor, share_N1: Tensor) -> tuple[Tensor, Tensor]:
    """Find a share of the total in cumulative weights.

    Args:
        weight_NK: Weights, at least 0, one of each row above 0.
        share_N1: A number in [0, 1) a row.

    Returns:
        The first place (N, 1) whose cumulative weight exceeds the share, so that one of weight 0 is never
        found; and what is left of the weight there (N, 1).
    """
    cumulative_NK = weight_NK.cumsum(1)
    at_N1 = share_N1 * cumulative_NK[:, -1:]
    place_N1 = torch.searchsorted(cumulative_NK, at_N1, right=True)
    # Rounding may give the total itself: then the last place that has any weight is taken.
    last_N1 = (weight_NK > 0).int().cumsum(1).argmax(1, keepdim=True)
    place_N1 = torch.minimum(place_N1, last_N1)
    return place_N1, at_N1 - (cumulative_NK - weight_NK).gather(1, place_N1)
