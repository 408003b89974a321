"""Axes of plots: from values to coordinates, and which values to mark."""

import math
from collections.abc import Sequence

# Ticks that an axis has, about.
TICKS = 5
# Powers of ten up to which a logarithmic axis also marks 2 and 5.
FEW_POWERS = 5


class Axis:
    """One direction of a plot.

    Args:
        values: What the axis must hold; it spans from the lowest to the highest.
        begin: Coordinate of the lowest value.
        end: Coordinate of the highest value.
        log: Whether the axis is logarithmic; its values are above zero.
    """

    def __init__(self, values: Sequence[float], begin: float, end: float, log: bool) -> None:
        self.log, self.begin, self.end = log, begin, end
        self.low, self.high = (min(values), max(values)) if values else (1.0, 1.0)
        if self.low == self.high:
            pad = max(0.5, 0.01 * abs(self.low))
            self.low, self.high = (self.low / 2, self.high * 2) if log else (self.low - pad, self.high + pad)
        # Steps and layers are whole numbers, with nothing in between to mark.
        self.whole = all(value == int(value) for value in values)

    def __call__(self, value: float) -> float:
        """The value's coordinate."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, float]]:
        """Round values within the axis (1, 2 and 5 times powers of ten), and their coordinates."""
        values = self._inside(self._powers()) if self.log else []
        if len(values) < 2:
            values = self._inside(self._steps())
        return [(value, self(value)) for value in values]

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = max(1, len(powers) // (TICKS + 1))
        digits = (1, 2, 5) if len(powers) < FEW_POWERS else (1,)
        return [digit * 10.0**power for power in powers[::every] for digit in digits]

    def _steps(self) -> list[float]:
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda digit: abs(digit - rough / power))
        if self.whole:
            step = max(1.0, step)
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [step * number for number in numbers]

    def _inside(self, values: Sequence[float]) -> list[float]:
        return [value for value in values if self.low <= value <= self.high]
