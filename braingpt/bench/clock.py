"""Times that can be compared: calls in turns, one clock for all, the median of the rounds with its spread.

A machine that slows down meanwhile is slower for all calls. A ratio is taken round by round, between
neighbours in time; its median and extremes are reported. No ratio is made of two separate sittings.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

# A call to be timed.
Work = Callable[[], object]
# Written between two calls: more than the last cache holds.
COLD_BYTES = {"cuda": 256 << 20, "cpu": 128 << 20}
# Seconds of a round, about, and its calls, at most.
ROUND_SECONDS, MOST_CALLS = 0.02, 30


@dataclass
class Series:
    """One figure in every round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    def over(self, other: "Series") -> "Series":
        """The ratio of this series to the other, round by round."""
        return Series([a / b for a, b in zip(self.rounds, other.rounds, strict=True)])

    def as_dict(self) -> dict[str, Any]:
        """Median, extremes and rounds."""
        return {
            "median": self.median,
            "min": min(self.rounds),
            "max": max(self.rounds),
            "rounds": self.rounds,
        }


class ColdClock:
    """Seconds of single calls that find nothing in the cache.

    The clock is the wall's on a CPU, and events of the device on a GPU. There the memory written before a
    call keeps the device busy while the call's kernels are launched, so launching is hidden as long as it is
    shorter (as in Triton's do_bench).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffer = torch.empty(COLD_BYTES[device.type], dtype=torch.int8, device=device)

    def __call__(self, work: Work) -> float:
        self._buffer.fill_(1)
        if self.device.type == "cpu":
            began = time.perf_counter()
            work()
            return time.perf_counter() - began
        return gpu_seconds(work)


def gpu_seconds(work: Work) -> float:
    """Seconds of `work` by the GPU's own events."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def time_in_turns(works: Mapping[str, Work], rounds: int, clock: ColdClock) -> dict[str, Series]:
    """Time calls in rounds in which each takes its turn.

    Each work must have been called before, so that nothing is compiled or allocated for the first time here.

    Args:
        works: The calls, by name.
        rounds: Rounds in which each call takes its turn.
        clock: Measures one call.

    Returns:
        Seconds a call, by name; the figure of a round is the median of its calls.
    """
    calls = {
        name: max(1, min(MOST_CALLS, round(ROUND_SECONDS / clock(work)))) for name, work in works.items()
    }
    found = {name: Series() for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].rounds.append(statistics.median(clock(work) for _ in range(calls[name])))
    return found
