"""What a benchmark has found so far, written to a file after every stage, so that an interruption loses one
stage at most.

docs/reference/json.md describes the keys.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braingpt.errors import Failure, UserError
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.hashed_json import check_hash, hashed, read_object

# Version of the report's schema.
VERSION = 1
FILE = "bench.json"
# Receives the share done and what is being done.
OnProgress = Callable[[float, str], None]


class Results:
    """A benchmark's report as it grows.

    Args:
        settings: The settings of the benchmark.
        machine: The machine that measures.
        folder: Where the report is written and resumed; None: it is in memory alone.

    Raises:
        UserError: The folder holds another benchmark, or one of another machine.
    """

    def __init__(self, settings: dict[str, Any], machine: dict[str, Any], folder: Path | None) -> None:
        self.folder = folder
        self.report: dict[str, Any] = {
            "kind": "architectures",
            "version": VERSION,
            "settings": settings,
            "machine": machine,
            "failed": {},
        }
        if folder is not None and (folder / FILE).is_file():
            self._resume(folder)

    def _resume(self, folder: Path) -> None:
        """Continue with the report that an interrupted run left."""
        file = folder / FILE
        try:
            found = read_object(file)
            if found.get("version") != VERSION:
                raise ValueError("it is not a benchmark of this version of braingpt")
            found = check_hash(found)
            if not all(isinstance(found.get(part), dict) for part in ("settings", "machine", "failed")):
                raise ValueError("it lacks its settings")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} cannot be continued ({error}); name another --out, or remove the file"
            ) from None
        ours = json.loads(json.dumps(self.report))
        for part in ("settings", "machine"):
            if odd := [key for key in ours[part] if found[part].get(key) != ours[part][key]]:
                was = found[part].get(odd[0])
                raise UserError(
                    f"{folder} holds a benchmark with another {part.rstrip('s')} ({odd[0]}: {was}); "
                    "name another --out, or remove it"
                )
        self.report = found

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of a stage.

        Args:
            name: Name of the stage.
            work: Measures the stage, unless the report has its result already.

        Returns:
            The result, which is also written.
        """
        if name not in self.report:
            result = work()
            self.report.pop("unfinished", None)
            self.record(name, result)
        return self.report[name]

    def record(self, name: str, value: Any) -> None:
        """Set a value and write the report."""
        self.report[name] = value
        if self.folder is not None:
            write_atomically(
                self.folder / FILE,
                json.dumps(hashed(self.report), ensure_ascii=False, allow_nan=False) + "\n",
            )

    def fail(self, name: str, stage: str, reason: str) -> None:
        """Leave a contender out from here on. Raises Failure where none remains."""
        self.report["failed"][name] = {"stage": stage, "reason": reason}
        if len(self.report["failed"]) == len(self.report["contenders"]):
            raise Failure(f"no contender is left: {name} failed in {stage}: {reason}")

    def alive(self) -> list[str]:
        """Contenders that have not failed."""
        return [name for name in self.report["contenders"] if name not in self.report["failed"]]
