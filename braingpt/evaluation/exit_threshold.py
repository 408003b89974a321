"""Which exit threshold keeps the loss within a budget: the validation text is scored at a row of thresholds,
and the one that spares most layers is named.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

THRESHOLDS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class ThresholdScore:
    """A threshold (None: no token leaves), the mean share of the layers a token goes through, and what it
    costs.
    """

    threshold: float | None
    layers_used: float
    # nats a token
    loss: float
    # perplexity over that without exits, less one
    perplexity_cost: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def sweep_thresholds(model: nn.Module, score: Callable[[], float]) -> Iterator[ThresholdScore]:
    """Each threshold in turn, from the most careful on; `score` gives the loss of the model as it is set.

    The model's own threshold comes back.
    """
    before = model.early.threshold
    try:
        model.set_exit_threshold(None)
        full = score()
        yield ThresholdScore(None, 1.0, full, 0.0)
        for threshold in THRESHOLDS:
            model.set_exit_threshold(threshold)
            # what was counted before is not of this threshold
            model.early.share()
            loss = score()
            yield ThresholdScore(threshold, model.early.share(), loss, math.expm1(loss - full))
    finally:
        model.set_exit_threshold(before)


def cheapest_within(found: list[ThresholdScore], budget: float) -> ThresholdScore:
    """The setting that uses fewest layers among those that raise perplexity by at most the share `budget`."""
    return min(
        (setting for setting in found if setting.perplexity_cost <= budget),
        key=lambda setting: setting.layers_used,
    )
