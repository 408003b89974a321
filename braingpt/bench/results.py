"""What a benchmark has found so far: a dictionary that is written to a file after every stage, so that an
interruption loses one stage at most.

docs/bench.md describes its keys.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braingpt.errors import Failure, UserError
from braingpt.utils.atomic_write import write_whole

# of the schema
VERSION = 1
FILE = "bench.json"


class Results:
    """The report in the making. `folder` None: it lives in memory alone."""

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
            self._go_on()

    def _go_on(self) -> None:
        """Take up what an interrupted run left.

        UserError where it was another benchmark or another machine.
        """
        try:
            found = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / FILE} cannot be read ({error}); name another --out") from None
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise UserError(
                f"{self.folder / FILE} is not a benchmark of this version of braingpt; name another --out"
            )
        ours = json.loads(json.dumps(self.report))
        for part in ("settings", "machine"):
            if odd := [key for key in ours[part] if found[part].get(key) != ours[part][key]]:
                was = found[part].get(odd[0])
                raise UserError(
                    f"{self.folder} holds a benchmark with another {part.rstrip('s')} ({odd[0]}: {was}); name another --out, or remove it"
                )
        self.report = found

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """The stage's result: what is there already, or what `work` returns, which is then written."""
        if name not in self.report:
            result = work()
            self.report.pop("unfinished", None)
            self.put(name, result)
        return self.report[name]

    def put(self, name: str, value: Any) -> None:
        """Keep a value and write everything."""
        self.report[name] = value
        if self.folder is not None:
            write_whole(
                self.folder / FILE, json.dumps(self.report, ensure_ascii=False, allow_nan=False) + "\n"
            )

    def fail(self, name: str, stage: str, reason: str) -> None:
        """A contender could not go on: the others do."""
        self.report["failed"][name] = {"stage": stage, "reason": reason}
        if len(self.report["failed"]) == len(self.report["contenders"]):
            raise Failure(f"no contender is left: {name} failed in {stage}: {reason}")

    def alive(self) -> list[str]:
        """Contenders that have not failed."""
        return [name for name in self.report["contenders"] if name not in self.report["failed"]]
