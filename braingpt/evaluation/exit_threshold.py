"""Which exit threshold keeps the loss within a budget.

The validation text is scored at each of several thresholds, and the threshold that saves most layers is
chosen among those within the budget.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from braingpt.model.lm import LanguageModel

THRESHOLDS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class ThresholdScore:
    """What a model uses and loses at one threshold."""

    # None: no token leaves early.
    threshold: float | None
    # Mean share of the layers that a token passes.
    layers_used: float
    # Nats a token.
    loss: float
    # Perplexity over that without exits, less one.
    perplexity_cost: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def sweep_thresholds(model: LanguageModel, score: Callable[[], float]) -> Iterator[ThresholdScore]:
    """Score a model at each threshold in turn, the most careful first.

    The model's own threshold is set again at the end.

    Args:
        model: A model with early exits.
        score: Returns the model's loss, in nats a token, at the threshold that is set.

    Yields:
        The score without exits, then one for each of `THRESHOLDS`.
    """
    early = model.early
    if early is None:
        raise ValueError("the model has no early exits")
    before = early.threshold
    try:
        model.set_exit_threshold(None)
        full = score()
        yield ThresholdScore(None, 1.0, full, 0.0)
        for threshold in THRESHOLDS:
            model.set_exit_threshold(threshold)
            # Tokens counted so far belong to the threshold before.
            early.share()
            loss, used = score(), early.share()
            layers_used = 1.0 if used is None else used
            yield ThresholdScore(threshold, layers_used, loss, math.expm1(loss - full))
    finally:
        model.set_exit_threshold(before)


def cheapest_within(scores: list[ThresholdScore], budget: float) -> ThresholdScore:
    """The score with fewest layers among those that raise perplexity by at most the share `budget`."""
    return min(
        (score for score in scores if score.perplexity_cost <= budget),
        key=lambda score: score.layers_used,
    )
