"""From logits to the next token: temperature, top-k, top-p, and a seed of its own for every row.

A row draws one uniform number a token from its own CPU generator and looks it up in the cumulative
distribution. So the same seed gives the same tokens on a CPU and on a GPU (where the logits agree), a batch
never disturbs its neighbours' draws, and the global random state is left alone.

Shapes: B rows, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index

import torch
from torch import Tensor

from braingpt.errors import Failure, UserError
from braingpt.utils.arguments import check_number, whole_number


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token. Raises UserError for a value out of range."""

    # Divides the logits; 0 always takes the likeliest token.
    temperature: float = 1.0
    # Choose among this many likeliest tokens; None: among all.
    top_k: int | None = None
    # Choose among the fewest tokens that hold this share of the probability; None: among all.
    top_p: float | None = None
    # Row i of a batch uses seed + i; None draws a fresh seed.
    seed: int | None = None
    # Token ids that are never chosen.
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("top-p", self.top_p)):
            if value is not None:
                check_number(name, value)
        # The comparison is false for NaN too.
        if not 0 <= self.temperature <= 100:
            raise UserError(f"temperature must be between 0 (greedy) and 100, not {self.temperature}")
        if self.top_k is not None:
            whole_number("top-k", self.top_k, 1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top-p must be above 0 and at most 1, not {self.top_p}")
        if self.seed is not None and not 0 <= whole_number("seed", self.seed, -(2**63)) < 2**63:
            raise UserError(f"seed must be between 0 and 2^63 - 1, not {self.seed}")


class Sampler:
    """Draws the next token of each of `rows` rows; keeps one random generator a row."""

    def __init__(self, sampling: Sampling, rows: int = 1) -> None:
        self.sampling = sampling
        self._generators = [torch.Generator() for _ in range(rows)]
        for row, generator in enumerate(self._generators):
            if sampling.seed is None:
                generator.seed()
            else:
                generator.manual_seed((sampling.seed + row) % 2**63)

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Choose a token for each row.

        Args:
            logits_BV: Logits of the next tokens.

        Returns:
            Ids (B,) on the logits' device.

        Raises:
            Failure: Logits are NaN, which greedy choice would hide.
        """
        sampling = self.sampling
        logits_BV = logits_BV.float()
        if torch.isnan(logits_BV).any():
            raise Failure(
                "the model's logits are not numbers (NaN): its weights are broken; use an earlier checkpoint"
            )
        if sampling.banned:
            banned = torch.tensor(sampling.banned, device=logits_BV.device)
            logits_BV = logits_BV.index_fill(1, banned, -torch.inf)
        if sampling.temperature == 0 or sampling.top_k == 1:
            return logits_BV.argmax(dim=1)
        probs_BK, ids_BK = self._candidates(logits_BV)
        # Sums over 16k entries in float32 would lose the tail.
        cumulative_BK = probs_BK.double().cumsum(dim=1)
        uniform_B1 = torch.cat(
            [torch.rand(1, 1, generator=g, dtype=torch.float64) for g in self._generators]
        ).to(logits_BV.device)
        # right=True gives the first entry whose cumulative share exceeds the uniform number, so an entry of
        # probability 0 is never drawn.
        index_B1 = torch.searchsorted(cumulative_BK, uniform_B1 * cumulative_BK[:, -1:], right=True)
        # Rounding may give the total itself: then the last entry that has any share is taken.
        last_B1 = (probs_BK > 0).int().cumsum(dim=1).argmax(dim=1, keepdim=True)
        index_B1 = torch.minimum(index_B1, last_B1)
        return (index_B1 if ids_BK is None else ids_BK.gather(1, index_B1)).squeeze(1)

    def _candidates(self, logits_BV: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shares (B, K), not normalised, and their ids; ids are None where entry i is token i.

        Tokens are sorted only for top-k or top-p.
        """
        sampling = self.sampling
        # A temperature near zero overflows unless the largest logit is subtracted first.
        scaled_BV = (logits_BV - logits_BV.amax(dim=1, keepdim=True)) / sampling.temperature
        if sampling.top_k is None and sampling.top_p is None:
            return scaled_BV.softmax(dim=1), None
        k = min(sampling.top_k or scaled_BV.shape[1], scaled_BV.shape[1])
        top_BK, ids_BK = scaled_BV.topk(k, dim=1)
        probs_BK = top_BK.softmax(dim=1)
        if sampling.top_p is not None:
            # The share of all likelier tokens: the first is always kept.
            before_BK = probs_BK.double().cumsum(dim=1) - probs_BK
            probs_BK = probs_BK.masked_fill(before_BK >= sampling.top_p, 0)
        return probs_BK, ids_BK


def check_ids(ids: Sequence[int], vocab: int) -> list[int]:
    """`ids` as a list. Raises UserError where there are none, or one is outside 0..vocab-1."""
    try:
        ids = [index(i) for i in ids]
    except TypeError:
        raise UserError(
            f"generation starts from token ids, as tokenizer.encode returns them, not {str(ids)[:60]!r}"
        ) from None
    if not ids:
        raise UserError("generation needs at least one token to start from, for example a language marker")
    outside = next((i for i in ids if not 0 <= i < vocab), None)
    if outside is not None:
        raise UserError(f"token {outside} is outside the model's vocabulary of {vocab}")
    return ids


def check_special_ids(name: str, ids: Iterable[int], vocab: int) -> tuple[int, ...]:
    """The tokens of `stop` or `banned`. Raises UserError where they are no tokens of the vocabulary."""
    try:
        found = tuple(index(i) for i in ids)
    except TypeError:
        raise UserError(f"{name} must be a list of token ids, not {str(ids)[:60]!r}") from None
    if outside := [i for i in found if not 0 <= i < vocab]:
        raise UserError(f"{name}: token {outside[0]} is outside the model's vocabulary of {vocab}")
    return found
