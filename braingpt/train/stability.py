"""Bad batches: which gradients are taken, which losses are spikes, and when a run has lost its way.

A gradient is left out when its norm is not finite, or far out: its logarithm more than `sigma` standard
deviations above the mean of the last 128 gradients taken (as OLMo-core's SkipStepOptimizer does with six;
here logarithms, since norms spread by factors). The decision is made where the norm lies and goes to the
optimizer as a tensor, so nothing waits for the device. Eight far-out gradients in a row are no accident but a
new level: the next one is taken and the window starts anew.

A loss is a spike when it jumps out of the 16 before it. Twenty steps in a row without a usable gradient, or
with a spike, mean that the run is lost (`Lost`): the trainer goes back to the last good checkpoint.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from braingpt.errors import Failure

# norms looked back on; before there are so many, only what is not finite is left out
WINDOW, LEAST = 128, 32
# smallest standard deviation of the logarithm assumed: a steady run may double its norm
SPREAD = 0.1
# far-out gradients in a row before the level is taken for a new one
MAX_FAR = 8
# steps a loss is compared with
SPIKE_WINDOW = 16
# median absolute deviations above their median
SPIKE_SPREADS = 6.0
# and at least so much
SPIKE_NATS = 0.5
# steps in a row without a finite gradient, or with a spike
MAX_BAD = 20


class Lost(Failure):
    """The run does not recover by itself."""


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether `loss` is not finite, or jumps out of the losses `before`, of which it takes 16: 6 median
    deviations and 0.5 nats above their median.
    """
    before = [value for value in before[-SPIKE_WINDOW:] if math.isfinite(value)]
    if not math.isfinite(loss) or len(before) < SPIKE_WINDOW:
        return not math.isfinite(loss)
    middle = statistics.median(before)
    spread = statistics.median(abs(value - middle) for value in before)
    return loss - middle > max(SPIKE_SPREADS * spread, SPIKE_NATS)


class Guard:
    """Judges a run's gradients and losses step by step. `sigma` None leaves out only what is not finite."""

    def __init__(self, sigma: float | None, device: torch.device) -> None:
        self.sigma = math.inf if sigma is None else sigma
        # of the norms taken, newest last; NaN before there were any
        self.logs_W = torch.full((WINDOW,), math.nan, device=device)
        # far-out gradients in a row
        self.far = torch.zeros((), device=device)
        # the last 16 that were no spikes
        self.losses: list[float] = []
        self.skipped = self.skipped_in_row = self.spikes = self.spikes_in_row = 0

    @torch.no_grad()
    def judge(self, norm: Tensor) -> Tensor:
        """1.0 where the gradient of this norm is to be left out, else 0.0; on the norm's device, without
        waiting for it.
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
        self.logs_W = torch.where(skip, self.logs_W, torch.cat([before_W[1:], log[None].clamp(min=-80)]))
        self.far = torch.where(far & ~new_level, self.far + 1, torch.where(skip, self.far, 0.0))
        return skip.float()

    def note(self, loss: float, norm: float, skipped: bool) -> dict[str, Any]:
        """Count a finished step; what a record says of it: {"skipped": reason} and {"spike": True} where they
        apply. Raises `Lost`.
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
        """Raise `Lost` after too many bad steps in a row up to `step`."""
        if self.skipped_in_row > MAX_BAD:
            raise Lost(f"no usable gradient in {self.skipped_in_row} steps up to step {step}")
        if self.spikes_in_row > MAX_BAD:
            raise Lost(
                f"the loss has been far above its former level for {self.spikes_in_row} steps up to step {step}"
            )

    @property
    def calm(self) -> bool:
        """Whether the last step was a good one; a checkpoint of such a step is one to go back to."""
        return not self.skipped_in_row and not self.spikes_in_row

    def new_level(self) -> None:
        """Forget what is usual: the data or their lengths change here, and the loss may."""
        self.logs_W.fill_(math.nan)
        self.far.zero_()
        self.losses, self.spikes_in_row = [], 0

    def state(self) -> dict[str, Any]:
        """Everything the next judgements depend on, as JSON."""
        logs = [value for value in self.logs_W.tolist() if not math.isnan(value)]
        counts = {key: getattr(self, key) for key in ("skipped", "skipped_in_row", "spikes", "spikes_in_row")}
        return {"log_norms": logs, "far_in_row": int(self.far), "losses": self.losses, **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.logs_W.fill_(math.nan)
        if logs := state["log_norms"]:
            self.logs_W[-len(logs) :] = torch.tensor(logs, device=self.logs_W.device)
        self.far.fill_(state["far_in_row"])
        self.losses = state["losses"]
        for key in ("skipped", "skipped_in_row", "spikes", "spikes_in_row"):
            setattr(self, key, state[key])
