"""A measured ratio, its uncertainty, and whether two models differ in it.

A figure is a sum of amounts over a sum of weights, over units that were measured apart: nats over tokens by
window, hits over one by item. Other units could have been measured, so units are what is resampled.

- Interval: percentile bootstrap (Efron 1979) over units, within each stratum (language) where there are
  several. Resampling cannot vary shares that are 0 or 1 in every unit: those take the exact binomial interval
  (Clopper & Pearson 1934), where none of 64 hit means at most 5.6 %. Where two models never differ, the
  difference is bounded in the same way.
- Two models on the same units: the bootstrap of the difference, and a sign-flip permutation test (Fisher
  1935, section 21; McNemar's question where amounts are 0 or 1). p is the share of flips that part the models
  at least as far; p is not corrected for the number of rows of a table.

Windows of one long text depend on each other, so their interval is a little too narrow; windows of validation
data are spread over the data.

Legend: U units, R resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braingpt.errors import UserError

CONFIDENCE, RESAMPLES, FLIPS, SEED = 0.95, 2_000, 10_000, 0
# Standard errors on both sides that hold 95 % of a normal distribution.
NORMAL = 1.96
# Random numbers held at a time.
AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Figure:
    """One number of a table, with the units it was measured on."""

    task: str
    # "all" for the pool, "-" where there is none.
    language: str
    metric: str
    # (U,) each.
    amount: np.ndarray
    weight: np.ndarray
    # (U,) whole numbers; None: one stratum.
    stratum: np.ndarray | None = None
    # The value that guessing reaches.
    chance: float | None = None
    lower_is_better: bool = False
    # Further facts for readers of the JSON.
    about: dict[str, Any] = field(default_factory=dict)
    # Where the units are not known: the value and its standard error.
    given: tuple[float, float | None] | None = None

    @property
    def value(self) -> float | None:
        """Amounts over weights; None where there is nothing to divide by."""
        if self.given:
            return self.given[0]
        total = float(self.weight.sum())
        return float(self.amount.sum()) / total if total else None

    @property
    def name(self) -> tuple[str, str, str]:
        """Task, language and metric, which are the same for the same figure of two models."""
        return self.task, self.language, self.metric

    @property
    def label(self) -> str:
        """The short name for a table, without obvious parts."""
        task = "" if self.task == "perplexity" else self.task
        metric = "" if self.metric in ("accuracy", "acc") else self.metric.replace("_", " ")
        return " ".join(word for word in (task, metric, self.language) if word and word != "-")

    @property
    def share(self) -> bool:
        """Whether the figure is a share of hits; a loss has no upper bound."""
        return self.chance is not None or self.metric.startswith("acc")

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None where a stratum has a single unit, which says nothing about variation."""
        if self.given:
            value, error = self.given
            return None if error is None else (value - NORMAL * error, value + NORMAL * error)
        if len(self.amount) > 1 and self.share and not self.amount.any():
            return 0.0, 1 - _all_hit(len(self.amount))
        if len(self.amount) > 1 and self.share and np.array_equal(self.amount, self.weight):
            return _all_hit(len(self.amount)), 1.0
        return _interval(self.amount, self.weight, self.stratum)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        low, high = self.interval() or (None, None)
        head = {"task": self.task, "language": self.language, "metric": self.metric, "value": self.value}
        return head | {
            "low": low,
            "high": high,
            "units": len(self.amount),
            "chance": self.chance,
            **self.about,
        }


@dataclass(frozen=True)
class Comparison:
    """The figure of one model minus that of another on the same units."""

    first: Figure
    second: Figure
    difference: float
    interval: tuple[float, float] | None
    # Share of sign flips that part the models at least as far; None for a single unit.
    p: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        low, high = self.interval or (None, None)
        values = {
            "value": self.first.value,
            "against": self.second.value,
            "difference": self.difference,
            "low": low,
            "high": high,
        }
        return {
            "task": self.first.task,
            "language": self.first.language,
            "metric": self.first.metric,
            **values,
            "p": self.p,
        }


def pooled(figures: list[Figure]) -> Figure:
    """One figure over the units of several, each a stratum of its own."""
    first = figures[0]
    return Figure(
        first.task,
        "all",
        first.metric,
        amount=np.concatenate([figure.amount for figure in figures]),
        weight=np.concatenate([figure.weight for figure in figures]),
        stratum=np.repeat(np.arange(len(figures)), [len(figure.amount) for figure in figures]),
        chance=first.chance,
        lower_is_better=first.lower_is_better,
    )


def compare(first: Figure, second: Figure) -> Comparison:
    """Compare two figures that were measured on the same units.

    Args:
        first: The figure of one model.
        second: The same figure of another model.

    Returns:
        `first` minus `second`, with interval and p.

    Raises:
        UserError: The figures were not measured on the same units.
    """
    if len(first.amount) != len(second.amount) or not np.array_equal(first.weight, second.weight):
        raise UserError(
            f"{' '.join(first.name)}: the two models were not measured on the same text, item by item; "
            "their tokenizers may differ"
        )
    amount_U = first.amount - second.amount
    difference = float(amount_U.sum()) / (float(first.weight.sum()) or 1.0)
    p = _permutation_p(amount_U) if len(amount_U) > 1 else None
    if len(amount_U) > 1 and not amount_U.any() and first.share:
        most = 1 - _all_hit(len(amount_U))
        return Comparison(first, second, difference, (-most, most), p)
    return Comparison(first, second, difference, _interval(amount_U, first.weight, first.stratum), p)


def compare_all(first: list[Figure], second: list[Figure]) -> list[Comparison]:
    """Each figure of the first list with its namesake in the second."""
    others = {figure.name: figure for figure in second}
    return [
        compare(figure, others[figure.name])
        for figure in first
        if figure.name in others and len(figure.amount)
    ]


def _interval(
    amount_U: np.ndarray, weight_U: np.ndarray, stratum_U: np.ndarray | None
) -> tuple[float, float] | None:
    """Percentile bootstrap of the ratio, within strata; None where a stratum has fewer than two units."""
    strata = _strata(len(amount_U), stratum_U)
    if min(map(len, strata), default=0) < 2 or not weight_U.sum():
        return None
    draw = np.random.default_rng(SEED)
    above_R, below_R = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for part in strata:
        for rows in _resample_slices(RESAMPLES, len(part)):
            drawn = part[draw.integers(0, len(part), (rows.stop - rows.start, len(part)))]
            above_R[rows] += amount_U[drawn].sum(1)
            below_R[rows] += weight_U[drawn].sum(1)
    ratio_R = above_R[below_R > 0] / below_R[below_R > 0]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(ratio_R, [tail, 100 - tail])
    return float(low), float(high)


def _all_hit(units: int) -> float:
    """The least share of hits at which it is not yet surprising that every unit hits."""
    return ((1 - CONFIDENCE) / 2) ** (1 / units)


def _strata(units: int, stratum_U: np.ndarray | None) -> list[np.ndarray]:
    """Numbers of the units of each stratum."""
    if stratum_U is None:
        return [np.arange(units)]
    return [np.flatnonzero(stratum_U == one) for one in np.unique(stratum_U)]


def _permutation_p(amount_U: np.ndarray) -> float:
    """Share of sign flips, no flip among them, under which the sum is at least as far from zero as it is."""
    draw, seen = np.random.default_rng(SEED), abs(float(amount_U.sum()))
    # Units that do not differ cannot part the models.
    amount_U = amount_U[amount_U != 0]
    if not len(amount_U):
        return 1.0
    slack, as_far = 1e-9 * float(np.abs(amount_U).sum()), 1
    for rows in _resample_slices(FLIPS, len(amount_U)):
        sign = 2.0 * draw.integers(0, 2, (rows.stop - rows.start, len(amount_U)), dtype=np.int8) - 1.0
        as_far += int((np.abs(sign @ amount_U) >= seen - slack).sum())
    return as_far / (FLIPS + 1)


def _resample_slices(count: int, units: int) -> Iterator[slice]:
    """Slices of `count` resamples, each with at most `AT_ONCE` random numbers."""
    step = max(1, AT_ONCE // max(1, units))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))
