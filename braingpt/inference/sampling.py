"""From a distribution to the next token: temperature, top-k, top-p, min-p, a penalty for repetitions, and a
seed of its own for every row.

A row draws uniform numbers from its own CPU generator, one a token where the head has no classes. So the same
seed gives the same tokens on a CPU and on a GPU (where the logits agree), a batch never disturbs its
neighbours' draws, and the global random state is left alone. How classes are read is `class_search.py`.

Shapes: B rows, L positions, N rows that draw, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.inference.class_search import ClassSearch, locate
from braingpt.model.heads.head import NextTokens
from braingpt.utils.arguments import check_number, whole_number


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token. Raises UserError for a value out of range."""

    # The power of probabilities is one over it; 0 always takes the likeliest token.
    temperature: float = 1.0
    # Choose among this many likeliest tokens; None: among all.
    top_k: int | None = None
    # Choose among the fewest tokens that hold this share of the probability; None: among all.
    top_p: float | None = None
    # Row i of a batch uses seed + i; None draws a fresh seed.
    seed: int | None = None
    # Token ids that are never chosen.
    banned: tuple[int, ...] = ()
    # Choose among the tokens with at least this share of the likeliest one's probability; None: among all.
    min_p: float | None = None
    # Log-probabilities of tokens of the prompt and the text are multiplied with it; 1: they stay.
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (
            ("temperature", self.temperature),
            ("top-p", self.top_p),
            ("min-p", self.min_p),
            ("repetition penalty", self.repetition_penalty),
        ):
            if value is not None:
                check_number(name, value)
        # The comparison is false for NaN too.
        if not 0 <= self.temperature <= 100:
            raise UserError(f"temperature must be between 0 (greedy) and 100, not {self.temperature}")
        if self.top_k is not None:
            whole_number("top-k", self.top_k, 1)
        for name, share in (("top-p", self.top_p), ("min-p", self.min_p)):
            if share is not None and not 0 < share <= 1:
                raise UserError(f"{name} must be above 0 and at most 1, not {share}")
        if not 1 <= self.repetition_penalty <= 100:
            raise UserError(
                f"the repetition penalty must be between 1 (none) and 100, not {self.repetition_penalty}"
            )
        if self.seed is not None and not 0 <= whole_number("seed", self.seed, -(2**63)) < 2**63:
            raise UserError(f"seed must be between 0 and 2^63 - 1, not {self.seed}")


class Sampler:
    """Draws the next token of each of `rows` rows; keeps one random generator a row."""

    def __init__(self, sampling: Sampling, rows: int = 1) -> None:
        self.sampling = sampling
        # Tokens of each row that the repetition penalty applies to.
        self._seen: list[set[int]] = [set() for _ in range(rows)]
        self._generators = [torch.Generator() for _ in range(rows)]
        for row, generator in enumerate(self._generators):
            if sampling.seed is None:
                generator.seed()
            else:
                generator.manual_seed((sampling.seed + row) % 2**63)

    def note(self, row: int, ids: Iterable[int]) -> None:
        """Let the repetition penalty apply to tokens that were read.

        Args:
            row: Their row.
            ids: The tokens.
        """
        if self.sampling.repetition_penalty != 1:
            self._seen[row].update(ids)

    def __call__(self, next_tokens: NextTokens) -> Tensor:
        """Choose a token for each row.

        Args:
            next_tokens: The distribution of the next tokens.

        Returns:
            Ids (B,) on the distribution's device.

        Raises:
            Failure: Logits are NaN, which greedy choice would hide.
        """
        token_B = self._choose(next_tokens)
        if self.sampling.repetition_penalty != 1:
            for row, token in enumerate(token_B.tolist()):
                self._seen[row].add(token)
        return token_B

    def _choose(self, next_tokens: NextTokens) -> Tensor:
        sampling = self.sampling
        greedy = sampling.temperature == 0 or sampling.top_k == 1
        search = self._search(next_tokens, 1.0 if greedy else 1 / sampling.temperature)
        if greedy:
            return search.candidates(1, None, None)[1][:, 0]
        if sampling.top_k is None and sampling.top_p is None and sampling.min_p is None:
            return search.draw(self._uniform)
        log_BK, ids_BK = search.candidates(sampling.top_k, sampling.top_p, sampling.min_p)
        rows_B = torch.arange(len(log_BK), device=log_BK.device)
        place_B1, _ = locate((log_BK - log_BK[:, :1]).exp(), self._uniform(rows_B))
        return ids_BK.gather(1, place_B1)[:, 0]

    def _search(self, next_tokens: NextTokens, sharpness: float) -> ClassSearch:
        device = next_tokens.device
        seen_BV, banned = None, None
        if any(self._seen):
            seen_BV = torch.zeros(len(self._seen), next_tokens.vocab, dtype=torch.bool)
            for seen_V, ids in zip(seen_BV, self._seen, strict=True):
                seen_V[list(ids)] = True
            seen_BV = seen_BV.to(device)
        if self.sampling.banned:
            banned = torch.tensor(self.sampling.banned, device=device)
        return ClassSearch(next_tokens, sharpness, self.sampling.repetition_penalty, seen_BV, banned)

    def _uniform(self, row_N: Tensor) -> Tensor:
        """(N, 1) a uniform number for each of some rows, from the rows' generators."""
        numbers = [
            torch.rand(1, 1, generator=self._generators[row], dtype=torch.float64) for row in row_N.tolist()
        ]
        return torch.cat(numbers).to(row_N.device)


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
