"""Bad batches: which updates are skipped, which losses are spikes, and when a run is lost.

An update is skipped when its gradient's norm is not finite, or far out: the norm's logarithm lies more than
`sigma` standard deviations above the mean of the last 128 updates taken (as in OLMo-core's SkipStepOptimizer
with six; logarithms here, because norms spread by factors). The decision is made on the norm's device and
reaches the optimizer as a tensor, so nothing waits. Eight far-out gradients in a row are not an accident but
a new level: the next update is taken and the window starts again.

A loss is a spike when it jumps out of the 16 before it. Twenty steps in a row that are skipped, or spikes,
mean that the run is lost (`Lost`): the trainer goes back to the last good checkpoint.

Shapes: W norms in the window.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from braingpt.errors import Failure

# Norms in the window, and how many must be known before a finite one can be far out.
WINDOW, LEAST = 128, 32
# Smallest standard deviation of the logarithm assumed: a steady run may double its norm.
SPREAD = 0.1
# Lowest logarithm kept: a norm of zero has none.
LOWEST_LOG = -80
# Far-out gradients in a row before their level counts as the new one.
MAX_FAR = 8
# Losses that a loss is compared with.
SPIKE_WINDOW = 16
# A spike is this many median absolute deviations above the median of those losses ...
SPIKE_SPREADS = 6.0
# ... and at least this many nats above it.
SPIKE_NATS = 0.5
# Bad steps in a row that a run survives.
MAX_BAD = 20
# Counts in a guard's state.
COUNTS = ("skipped", "skipped_in_row", "spikes", "spikes_in_row")


class Lost(Failure):
    """A run that does not recover by itself."""


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether `loss` is not finite, or jumps out of the last losses `before` it, all in nats."""
    if not math.isfinite(loss):
        return True
    last = [value for value in before[-SPIKE_WINDOW:] if math.isfinite(value)]
    if len(last) < SPIKE_WINDOW:
        return False
    middle = statistics.median(last)
    spread = statistics.median(abs(value - middle) for value in last)
    return loss - middle > max(SPIKE_SPREADS * spread, SPIKE_NATS)


class Guard:
    """Judges a run's gradients and losses, step by step.

    `sigma`: standard deviations at which a finite norm is far out; None skips only what is not finite.
    """

    def __init__(self, sigma: float | None, device: torch.device) -> None:
        self.sigma = math.inf if sigma is None else sigma
        # Logarithms of the last norms, newest last; NaN before the window is full.
        self.logs_W = torch.full((WINDOW,), math.nan, device=device)
        # Far-out gradients in a row.
        self.far = torch.zeros((), device=device)
        # The last losses that were no spikes.
        self.losses: list[float] = []
        self.skipped = self.skipped_in_row = self.spikes = self.spikes_in_row = 0

    @torch.no_grad()
    def judge(self, norm: Tensor) -> Tensor:
        """1.0 where the update of this gradient norm is to be skipped, else 0.0.

        Both are scalars on the same device, and nothing waits for the device.
        """
        log = norm.float().log()
        known_W = ~self.logs_W.isnan()
        count = known_W.sum()
        mean = self.logs_W.nansum() / count
        spread = ((self.logs_W - mean).square().nansum() / (count - 1)).sqrt().clamp(min=SPREAD)
        far = norm.isfinite() & (count >= LEAST) & (log > mean + self.sigma * spread)
        new_level = far & (self.far >= MAX_FAR)
        skip = ~norm.isfinite() | (far & ~new_level)
        before_W = torch.where(new_level, math.nan, self.logs_W)
        self.logs_W = torch.where(
            skip, self.logs_W, torch.cat([before_W[1:], log[None].clamp(min=LOWEST_LOG)])
        )
        self.far = torch.where(far & ~new_level, self.far + 1, torch.where(skip, self.far, 0.0))
        return skip.float()

    def note(self, loss: float, norm: float, skipped: bool) -> dict[str, Any]:
        """Count a finished step; return its remarks for the record.

        Returns:
            {"skipped": reason} and {"spike": True} where they apply.
        """
        reason = ("gradient far out" if math.isfinite(norm) else "gradient not finite") if skipped else None
        spike = math.isfinite(loss) and is_spike(loss, self.losses)
        if math.isfinite(loss) and not spike:
            self.losses = [*self.losses[1 - SPIKE_WINDOW :], loss]
        self.skipped += skipped
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0
        self.spikes += spike
        self.spikes_in_row = self.spikes_in_row + 1 if spike else 0
        return ({"skipped": reason} if reason else {}) | ({"spike": True} if spike else {})

    def check(self, step: int) -> None:
        """Raise `Lost` after too many bad steps in a row, the last being `step`."""
        if self.skipped_in_row > MAX_BAD:
            raise Lost(f"no usable gradient in {self.skipped_in_row} steps up to step {step}")
        if self.spikes_in_row > MAX_BAD:
            count = self.spikes_in_row
            raise Lost(f"the loss has been far above its former level for {count} steps up to step {step}")

    @property
    def calm(self) -> bool:
        """Whether the last step was good, so that its checkpoint is one to go back to."""
        return not self.skipped_in_row and not self.spikes_in_row

    def new_level(self) -> None:
        """Forget what is usual: model or data change here, and norms and losses may."""
        self.logs_W.fill_(math.nan)
        self.far.zero_()
        self.losses, self.spikes_in_row = [], 0

    def state(self) -> dict[str, Any]:
        """Everything the next judgements depend on, as JSON."""
        logs = [value for value in self.logs_W.tolist() if not math.isnan(value)]
        counts = {key: getattr(self, key) for key in COUNTS}
        return {"log_norms": logs, "far_in_row": int(self.far), "losses": self.losses, **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.logs_W.fill_(math.nan)
        if logs := state["log_norms"]:
            self.logs_W[-len(logs) :] = torch.tensor(logs, device=self.logs_W.device)
        self.far.fill_(state["far_in_row"])
        self.losses = state["losses"]
        for key in COUNTS:
            setattr(self, key, state[key])
