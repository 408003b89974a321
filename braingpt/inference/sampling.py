"""From a distribution to the next token: temperature, top-k, top-p, min-p, a penalty for repetitions, and a
seed of its own for every row.

A row draws uniform numbers from its own CPU generator. So the same seed gives the same tokens on a CPU and on
a GPU (where the logits agree), a batch never disturbs its neighbours' draws, and the global random state is
left alone. `choice.py` computes with the logits of all tokens, `class_search.py` with a head that has
classes; only CPUs use it, with more than one number a token, so that a GPU draws other tokens there.

Shapes: B rows, L positions, N rows that draw, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import TypedDict

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.inference import choice
from braingpt.inference.choice import NO_CUTS, Adjustment, Cuts
from braingpt.inference.class_search import ClassSearch
from braingpt.model.heads.head import ClassedTokens, NextTokens, Rule
from braingpt.utils.arguments import check_number, whole_number


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments with which all that generate choose tokens, as the fields of `Sampling`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    seed: int | None


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
        # Tokens that were read since the last choice, to which the repetition penalty will apply.
        self._noted: list[tuple[int, list[int]]] = []
        self._adjustment = Adjustment(sampling.repetition_penalty)
        self._cuts = Cuts(sampling.top_k, None if sampling.top_p == 1 else sampling.top_p, sampling.min_p)
        # For a single row, made at the first choice.
        self._rule: Rule | None = None
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
            self._noted.append((row, list(ids)))

    def __call__(self, next_tokens: NextTokens) -> Tensor:
        """Choose a token for each row.

        Args:
            next_tokens: The distribution of the next tokens.

        Returns:
            Ids (B,) on the distribution's device.

        Raises:
            Failure: Logits are NaN, which greedy choice would hide.
            UserError: Every token is banned.
        """
        with torch.inference_mode():
            self._adjust(next_tokens)
            token_B = self._choose(next_tokens)
            if self._adjustment.seen_BV is not None:
                self._adjustment.seen_BV.scatter_(1, token_B[:, None], True)
        return token_B

    def _choose(self, next_tokens: NextTokens) -> Tensor:
        sampling, cuts = self.sampling, self._cuts
        # Below, logarithms of weights would no longer be numbers.
        temperature = max(sampling.temperature, 1e-30)
        greedy = sampling.temperature == 0 or sampling.top_k == 1
        # Other devices multiply with the whole vocabulary faster than they wait for the choice of a class.
        if isinstance(next_tokens, ClassedTokens) and next_tokens.device.type == "cpu":
            if (token := self._choose_alone(next_tokens, 0 if greedy else temperature)) is not None:
                return torch.tensor([token])
            tokens = []
            for row, generator in enumerate(self._generators):
                search = ClassSearch(next_tokens, row, self._adjustment, temperature, cuts)
                tokens.append(search.likeliest() if greedy else search.draw(lambda g=generator: _uniform(g)))
            return torch.tensor(tokens)
        log_BV = self._adjustment.of_all(next_tokens.logits())
        if greedy:
            return choice.likeliest(log_BV)
        uniform_B1 = torch.tensor([[_uniform(g)] for g in self._generators], dtype=torch.float64)
        uniform_B1 = uniform_B1.to(log_BV.device)
        if cuts == NO_CUTS:
            return choice.draw(log_BV, temperature, uniform_B1)
        weight_BJ, ids_BJ = choice.candidates(log_BV, temperature, cuts)
        return ids_BJ.gather(1, choice.locate(weight_BJ, uniform_B1))[:, 0]

    def _choose_alone(self, next_tokens: ClassedTokens, temperature: float) -> int | None:
        """The next token of the only row; None where the distribution does not choose it by itself."""
        if len(self._generators) > 1:
            return None
        if self._rule is None:
            adjustment = self._adjustment
            seen_V = None if adjustment.seen_BV is None else adjustment.seen_BV[0]
            self._rule = Rule(temperature, *self._cuts, adjustment.penalty, seen_V, adjustment.banned_V)
        token = next_tokens.choose(self._rule, partial(_uniform, self._generators[0]))
        if token is not None and token < 0:
            raise choice.nan_failure()
        return token

    def _adjust(self, next_tokens: NextTokens) -> None:
        """Bring what is banned and what was noted to the distribution's device."""
        adjustment, device, vocab = self._adjustment, next_tokens.device, next_tokens.vocab
        if self.sampling.banned and adjustment.banned_V is None:
            banned_V = torch.zeros(vocab, dtype=torch.bool)
            banned_V[list(self.sampling.banned)] = True
            if banned_V.all():
                raise UserError("every token is banned; leave at least one to choose")
            adjustment.banned_V = banned_V.to(device)
        if self.sampling.repetition_penalty != 1 and adjustment.seen_BV is None:
            rows = len(self._generators)
            adjustment.seen_BV = torch.zeros(rows, vocab, dtype=torch.bool, device=device)
        for row, ids in self._noted:
            assert adjustment.seen_BV is not None
            adjustment.seen_BV[row, ids] = True
        self._noted.clear()


def _uniform(generator: torch.Generator) -> float:
    """A number in [0, 1)."""
    return float(torch.rand(1, generator=generator, dtype=torch.float64))


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
