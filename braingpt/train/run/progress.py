"""What a person sees while training runs: a live line in a terminal, a plain line every ten seconds
elsewhere.

The loop tells a `Reporter` what happens; the base class says nothing, so a library call is silent.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from braingpt.train.run.folder import LIMIT
from braingpt.utils.formatting import duration

# between two plain lines
PLAIN_SECONDS = 10.0


class Reporter:
    """Hears everything, prints nothing."""

    def begin(self, summary: str, step: int, steps: int) -> None:
        """The run starts after `step` of `steps`; `summary` is the plan in a line."""

    def step(self, record: dict[str, Any]) -> None:
        """A training record, as in metrics.jsonl."""

    def validation(self, record: dict[str, Any]) -> None:
        """A validation record."""

    def incident(self, record: dict[str, Any]) -> None:
        """A step was left out, or its loss was a spike."""

    def rewind(self, record: dict[str, Any]) -> None:
        """The run went back to an earlier checkpoint."""

    def growth(self, record: dict[str, Any]) -> None:
        """The model has grown before this step."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def end(self) -> None:
        """The run is over, well or not."""


class PlainReporter(Reporter):
    """Lines on a console without a terminal: the first step, then one every ten seconds, every validation,
    the last step.
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self.last = 0.0

    def begin(self, summary: str, step: int, steps: int) -> None:
        self.console.print(summary, soft_wrap=True)
        self.first, self.steps, self.began = step, steps, time.monotonic()

    def step(self, record: dict[str, Any]) -> None:
        now, step = time.monotonic(), record["step"]
        if now - self.last < PLAIN_SECONDS and step != self.steps:
            return
        self.last = now
        left = (now - self.began) / (step - self.first) * (self.steps - step)
        self.console.print(
            f"step {step}/{self.steps}  loss {_number(record['loss'])}  lr {record['lr']:.2e}  "
            f"{record['tokens_per_second']:,.0f} tokens/s{_share(record)}  {record['memory_bytes'] / 1e9:.1f} GB  "
            f"{''.join(words + '  ' for words in _beside(record))}{duration(left)} left",
            soft_wrap=True,
        )

    def validation(self, record: dict[str, Any]) -> None:
        self.console.print(validation_line(record), soft_wrap=True)

    def incident(self, record: dict[str, Any]) -> None:
        self.note(f"step {record['step']}  {record['reason']}")

    def rewind(self, record: dict[str, Any]) -> None:
        self.note(f"{record['reason']}; back to step {record['step']}, going on with other data")

    def growth(self, record: dict[str, Any]) -> None:
        self.note(
            f"step {record['step']}  stage {record['stage']} of {record['stages']}: {record['layers_before']} -> {record['layers']} layers"
        )

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)


class LiveReporter(PlainReporter):
    """A bar and a line of figures that redraw themselves; validations and notes stay above them."""

    def begin(self, summary: str, step: int, steps: int) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        self.console.print(summary)
        self.progress = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("validation {task.fields[validation]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self.task = self.progress.add_task("", total=steps, completed=step, loss="-", validation="-")
        self.figures = Text()
        self.live = Live(Group(self.progress, self.figures), console=self.console, refresh_per_second=4)
        self.live.start()

    def step(self, record: dict[str, Any]) -> None:
        self.progress.update(self.task, completed=record["step"], loss=_number(record["loss"]))
        parts = [
            f"{record['tokens_per_second']:,.0f} tokens/s{_share(record)}",
            f"{record['memory_bytes'] / 1e9:.1f} GB",
            *_beside(record),
            *_shares(record),
        ]
        self.figures.plain = ", ".join(parts)

    def validation(self, record: dict[str, Any]) -> None:
        bits = record["bits_per_byte"]
        self.progress.update(self.task, validation="-" if bits is None else f"{bits:.3f} bits/byte")
        super().validation(record)

    def end(self) -> None:
        if hasattr(self, "live"):
            self.live.stop()


def first_words(trainer: Any, start: Any, limit: int | None = None) -> Iterator[str]:
    """What is worth a line before the first step: settings without effect, where the run goes on, what is
    slow, what is missing.
    """
    yield from trainer.recipe.remarks()
    if trainer.config.growth:
        yield _stages(trainer.recipe.growth_stages)
    if start:
        yield f"going on after step {trainer.step} ({start})"
    if limit:
        yield f"no more than {windows(limit)} at a time, as more did not fit into memory before; without {trainer.run.path / LIMIT} more are tried"
    if trainer.dtype is not None and trainer.device.type == "cpu":
        yield "bfloat16 is slow on most CPUs, up to hundreds of times; --set train.dtype=float32 avoids that"
    if trainer.feed.batches.skipped:
        yield f"left out, being shorter than a window: {', '.join(trainer.feed.batches.skipped)}"
    if not trainer.validates:
        yield f"no validation: the data hold no validation text of {trainer.config.context} tokens"


def reporter_for(console: Any) -> Reporter:
    """Live on a terminal, plain lines elsewhere."""
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


def validation_line(record: dict[str, Any]) -> str:
    """`step 100  validation loss 5.12, 2.01 bits/byte (ko 1.80, en 2.20); columns 17 %, imbalance 1.3`"""
    languages = ", ".join(
        f"{name} {_number(score['bits_per_byte'])}" for name, score in record["by_language"].items()
    )
    shares = _shares(record)
    line = f"step {record['step']}  validation loss {_number(record['loss'])}, {_number(record['bits_per_byte'])} bits/byte ({languages})"
    return line + (f"; {', '.join(shares)}" if shares else "")


def _shares(record: dict[str, Any]) -> list[str]:
    """What was left out, in words."""
    return [
        _inside(name, value)
        for name, value in record.get("inside", {}).items()
        if name == "imbalance" or value < 1
    ]


def _inside(name: str, value: float) -> str:
    return f"imbalance {value:.1f}" if name == "imbalance" else f"{name} {value:.0%}".replace("%", " %")


def _share(record: dict[str, Any]) -> str:
    return f" ({record['share_of_peak']:.0%} of the peak)" if "share_of_peak" in record else ""


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def windows(count: int) -> str:
    """1 window, 2 windows."""
    return f"{count} window{'s' * (count != 1)}"


def _stages(stages: Sequence[Any]) -> str:
    """`grows: 1 layer at first, 2 after step 67, 6 after step 467`"""
    first, *later = stages
    words = [
        f"{_layers(first.layers)} at first",
        *(f"{stage.layers} after step {stage.begin}" for stage in later),
    ]
    return f"grows: {', '.join(words)}"


def _beside(record: dict[str, Any]) -> list[str]:
    """What only some runs tell of a step: `stage 2, 4 layers` and `flips 0.31 %`, the share of the 2:4 masks
    that it changed.
    """
    stage = [f"stage {record['stage']}, {_layers(record['layers'])}"] if "stage" in record else []
    return stage + ([f"flips {record['flip_rate']:.2%}".replace("%", " %")] if "flip_rate" in record else [])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
