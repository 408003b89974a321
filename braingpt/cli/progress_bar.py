"""Progress of a long measurement: a bar with the time left in a terminal, else a line every ten seconds."""

import time
from typing import TYPE_CHECKING

from braingpt.utils.formatting import duration
from braingpt.utils.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# Seconds between two lines of progress without a terminal.
PLAIN_SECONDS = 10.0


class ProgressBar:
    """A context manager whose value is called with the share done (0 to 1) and the present stage.

    Args:
        messages: The console for people.
        at_once: Whether the first line without a terminal comes at once, not after ten seconds.
    """

    def __init__(self, messages: "Console", at_once: bool = True) -> None:
        self.messages = messages
        self.last_line = 0.0 if at_once else time.monotonic()
        self.time_left = TimeLeft(1.0)
        self.bar: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        self.time_left = TimeLeft(1.0)
        if self.messages.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False),
                TextColumn("{task.fields[left]}", markup=False),
            )
            self.bar = Progress(*columns, console=self.messages, transient=True)
            self.task = self.bar.add_task("", total=1.0, left="")
            self.bar.start()
        return self

    def __call__(self, share: float, stage: str) -> None:
        self.time_left.update(share)
        seconds, now = self.time_left.seconds, time.monotonic()
        left = "" if seconds is None else f"about {duration(seconds)} left"
        if self.bar:
            self.bar.update(self.task, completed=share, description=stage, left=left)
        elif now - self.last_line >= PLAIN_SECONDS:
            self.last_line = now
            self.messages.print(", ".join(filter(None, [f"{share:4.0%}  {stage}", left])), soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
