"""How far a long measurement has come: a bar with the time left in a terminal, a line every ten seconds
elsewhere.
"""

import time
from typing import Any

# between two lines of progress without a terminal
PLAIN_SECONDS = 10.0


class Progress:
    """Call it with the share that is done and what is being done. `say`: a console."""

    def __init__(self, say: Any) -> None:
        self.say, self.began, self.last, self.bar = say, time.monotonic(), 0.0, None

    def __enter__(self) -> "Progress":
        if self.say.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                TextColumn("left"),
            )
            self.bar = Progress(*columns, console=self.say, transient=True)
            self.task = self.bar.add_task("", total=1.0)
            self.bar.start()
        return self

    def __call__(self, share: float, what: str) -> None:
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=share, description=what)
        elif now - self.last >= PLAIN_SECONDS:
            from braingpt.utils.formatting import duration

            self.last = now
            left = (
                f", about {duration((now - self.began) / share * (1 - share))} left" if share > 0.02 else ""
            )
            self.say.print(f"{share:4.0%}  {what}{left}", soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
