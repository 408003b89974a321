"""The display of training: a live line in a terminal, a plain line every ten seconds elsewhere.

The loop reports to a `Reporter` what happens. The base class prints nothing, so a library call is silent.
"""

import time
from typing import TYPE_CHECKING, Any

from braingpt.utils.formatting import duration
from braingpt.utils.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two plain lines.
PLAIN_SECONDS = 10.0


class Reporter:
    """Takes every report and prints nothing."""

    def begin(self, summary: str, step: int, steps: int) -> None:
        """The run starts after `step` of `steps`; `summary` is the plan in a line."""

    def step(self, record: dict[str, Any]) -> None:
        """A training record, as in metrics.jsonl."""

    def validation(self, record: dict[str, Any]) -> None:
        """A validation record."""

    def incident(self, record: dict[str, Any]) -> None:
        """A step was skipped, or its loss was a spike."""

    def rewind(self, record: dict[str, Any]) -> None:
        """The run went back to an earlier checkpoint."""

    def growth(self, record: dict[str, Any]) -> None:
        """The model has grown before this step."""

    def note(self, text: str) -> None:
        """A note of one line."""

    def end(self) -> None:
        """The run is over, whether it succeeded or failed."""


class PlainReporter(Reporter):
    """Lines on a console without a terminal: the first step, then one every ten seconds, every validation,
    the last step.
    """

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.steps = 0
        self.time_left = TimeLeft(0)
        # Time of the last line.
        self.last = 0.0

    def begin(self, summary: str, step: int, steps: int) -> None:
        self.note(summary)
        self._count(step, steps)

    def _count(self, step: int, steps: int) -> None:
        self.steps, self.time_left = steps, TimeLeft(steps, step)

    def _left(self, step: int) -> str:
        """`4 min left`, after this step."""
        self.time_left.update(step)
        seconds = self.time_left.seconds
        return "" if seconds is None else f"{duration(seconds)} left"

    def step(self, record: dict[str, Any]) -> None:
        now, step = time.monotonic(), record["step"]
        left = self._left(step)
        if now - self.last < PLAIN_SECONDS and step != self.steps:
            return
        self.last = now
        figures = [
            f"step {step}/{self.steps}",
            f"loss {_number(record['loss'])}",
            f"lr {record['lr']:.2e}",
            _speed(record),
            _memory(record),
            *_some_runs(record),
            left,
        ]
        self.note("  ".join(figures))

    def validation(self, record: dict[str, Any]) -> None:
        self.note(validation_line(record))

    def incident(self, record: dict[str, Any]) -> None:
        self.note(f"step {record['step']}  {record['reason']}")

    def rewind(self, record: dict[str, Any]) -> None:
        self.note(f"{record['reason']}; back to step {record['step']}, continuing with other data")

    def growth(self, record: dict[str, Any]) -> None:
        stage = f"stage {record['stage']} of {record['stages']}"
        self.note(f"step {record['step']}  {stage}: {record['layers_before']} -> {record['layers']} layers")

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, emoji=False)


class LiveReporter(PlainReporter):
    """A bar and a line of figures that redraw themselves; validations and notes stay above them."""

    def begin(self, summary: str, step: int, steps: int) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.text import Text

        self.console.print(summary, markup=False)
        self.progress = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}", markup=False),
            TextColumn("validation {task.fields[validation]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        self.task = self.progress.add_task("", total=steps, completed=step, loss="-", validation="-", left="")
        self._count(step, steps)
        self.figures = Text()
        self.live = Live(Group(self.progress, self.figures), console=self.console, refresh_per_second=4)
        self.live.start()

    def step(self, record: dict[str, Any]) -> None:
        step = record["step"]
        self.progress.update(self.task, completed=step, loss=_number(record["loss"]), left=self._left(step))
        figures = [_speed(record), _memory(record), *_some_runs(record), *_inside(record)]
        self.figures.plain = ", ".join(figures)

    def validation(self, record: dict[str, Any]) -> None:
        bits = record["bits_per_byte"]
        self.progress.update(self.task, validation="-" if bits is None else f"{bits:.3f} bits/byte")
        super().validation(record)

    def end(self) -> None:
        if hasattr(self, "live"):
            self.live.stop()


def reporter_for(console: "Console") -> Reporter:
    """Live on a terminal, plain lines elsewhere."""
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


def validation_line(record: dict[str, Any]) -> str:
    """`step 100  validation loss 5.12, 2.01 bits/byte (ko 1.80, en 2.20); columns 17 %, imbalance 1.3`"""
    languages = ", ".join(
        f"{name} {_number(score['bits_per_byte'])}" for name, score in record["by_language"].items()
    )
    loss, bits = _number(record["loss"]), _number(record["bits_per_byte"])
    line = f"step {record['step']}  validation loss {loss}, {bits} bits/byte ({languages})"
    shares = _inside(record)
    return line + (f"; {', '.join(shares)}" if shares else "")


def layers_in_words(count: int) -> str:
    """1 layer, 2 layers."""
    return f"{count} layer{'s' * (count != 1)}"


def _speed(record: dict[str, Any]) -> str:
    """`1,234 tokens/s (40 % of measured matmul speed)`"""
    speed = f"{record['tokens_per_second']:,.0f} tokens/s"
    if "share_of_peak" not in record:
        return speed
    return f"{speed} ({_percent(record['share_of_peak'])} of measured matmul speed)"


def _memory(record: dict[str, Any]) -> str:
    return f"{record['memory_bytes'] / 1e9:.1f} GB"


def _some_runs(record: dict[str, Any]) -> list[str]:
    """Figures of only some runs: `stage 2, 4 layers`, and `flips 0.31 %`, the share of the 2:4 masks that the
    step changed.
    """
    stage = [f"stage {record['stage']}, {layers_in_words(record['layers'])}"] if "stage" in record else []
    return stage + ([f"flips {_percent(record['flip_rate'], 2)}"] if "flip_rate" in record else [])


def _inside(record: dict[str, Any]) -> list[str]:
    """The shares a model computed, where they are below one, and the columns' imbalance."""
    return [
        f"imbalance {value:.1f}" if name == "imbalance" else f"{name} {_percent(value)}"
        for name, value in record.get("inside", {}).items()
        if name == "imbalance" or value < 1
    ]


def _percent(share: float, digits: int = 0) -> str:
    return f"{share:.{digits}%}".replace("%", " %")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
