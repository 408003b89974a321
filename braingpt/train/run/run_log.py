"""Where a run's records go: into metrics.jsonl, to the loggers, and to the person who watches."""

from collections.abc import Callable
from typing import Any

from braingpt.recipes import Recipe
from braingpt.train.run.checkpoint_writer import retry_while_disk_full
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.loggers import Loggers
from braingpt.train.run.progress import Reporter
from braingpt.train.run.signals import StopRequest


class RunLog:
    """Writes each record of a run everywhere it belongs. `stop` ends the waiting for a full disk."""

    def __init__(self, folder: RunFolder, reporter: Reporter, stop: StopRequest) -> None:
        self.folder, self.reporter, self.stop = folder, reporter, stop
        self.loggers: Loggers | None = None
        self.report: dict[str, Callable[[dict[str, Any]], None]] = {
            "train": reporter.step,
            "validation": reporter.validation,
            "incident": reporter.incident,
            "rewind": reporter.rewind,
            "growth": reporter.growth,
        }

    def open_loggers(self, names: tuple[str, ...], recipe: Recipe) -> None:
        """Log to these as well. Raises UserError for what is not installed."""
        if names:
            self.loggers = Loggers(names, self.folder.path, recipe)

    def write(self, kind: str, step: int, **figures: Any) -> dict[str, Any]:
        """Write the record of this kind and step, and return it."""
        record = {"kind": kind, "step": step, **figures}
        retry_while_disk_full(lambda: self.folder.log(record), self.reporter.note, self.stop)
        if self.loggers:
            self.loggers.log(record)
        self.report[kind](record)
        return record

    def close(self) -> None:
        """Close the loggers and end the display."""
        self.reporter.end()
        if self.loggers:
            self.loggers.close()
