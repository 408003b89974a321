"""The time that long work has left, from its recent pace: the machine may have got busier, or quieter."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# Seconds of work whose pace counts as recent.
WINDOW = 10.0
# Reports that count at least, however long they took.
FEWEST = 5


@dataclass
class _Part:
    """What lay between two reports: when it ended, its seconds and units, and the usual pace then."""

    ended: float
    seconds: float
    units: float
    pace: float = 0.0


class TimeLeft:
    """Follows work of a known size.

    The usual pace is a median, which single pauses (a validation, a checkpoint) do not move. What the pauses
    took so far, as a share of the work between them, is added.
    """

    def __init__(self, total: float, done: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count.

        Args:
            total: Units of the whole work: steps, bytes, shares.
            done: Units that are done already.
            clock: Seconds now.
        """
        self.total, self.done, self.clock = total, done, clock
        self.last = clock()
        self.recent: deque[_Part] = deque()
        # Seconds of parts that are no longer recent, without and with their pauses.
        self.working = self.passed = 0.0

    def update(self, done: float) -> None:
        """Note that `done` units are done now."""
        now = self.clock()
        if done <= self.done:
            # After a rewind the same units are done again.
            self.done = min(self.done, done)
            return
        part = _Part(now, now - self.last, done - self.done)
        self.last, self.done = now, done
        self.recent.append(part)
        part.pace = pace = self._pace()
        while len(self.recent) > FEWEST and now - self.recent[0].ended > WINDOW:
            old = self.recent.popleft()
            self.passed += old.seconds
            # Slow beside the pace before and the pace after it: that was a pause, not a busier machine.
            self.working += min(old.seconds, max(old.pace, pace) * old.units)

    def _pace(self) -> float:
        """Median seconds for a unit, each unit counted."""
        parts = sorted(self.recent, key=lambda part: part.seconds / part.units)
        half = sum(part.units for part in parts) / 2
        for part in parts:
            half -= part.units
            if half <= 0:
                break
        return part.seconds / part.units

    @property
    def seconds(self) -> float | None:
        """Seconds left, or None before the first report."""
        if not self.recent:
            return None
        pauses = self.passed / self.working if self.working else 1.0
        return self._pace() * (self.total - self.done) * pauses
