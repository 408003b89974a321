"""The run folder: one writer at a time, the metrics line by line, and which checkpoint is best.

runs/NAME/
  recipe.yaml     the resolved recipe
  metrics.jsonl   one JSON object a line, of kind "train" every step, "validation" every evaluation,
                  "growth" when the model grows, "incident" for a bad batch, "rewind" for going back
  best.json       step, loss and folder of the checkpoint with the lowest validation loss
  checkpoints/    step-0000250/ ...
  micro_batch     windows at a time that the next start may take at most, where one of several processes
                  ran out of memory
  report.md       the report, with curves.svg and curves.png (extra `png`), written by the command line
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.distributed.world import World
from braingpt.errors import Failure, UserError
from braingpt.recipes import Recipe, recipe_text
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.formatting import byte_size
from braingpt.utils.paths import check_folder
from braingpt.utils.scratch import clear_folder, is_rest

METRICS, RECIPE, BEST, LOCK, LIMIT = "metrics.jsonl", "recipe.yaml", "best.json", ".lock", "micro_batch"


@contextmanager
def locked(path: Path) -> Iterator["RunFolder"]:
    """Open the run folder at `path` for this process alone, creating it where there is none.

    A folder left without content is removed again, with the parent folders made for it.

    Raises:
        UserError: Another process writes there, or `path` is a file or a folder of other things.
    """
    path = Path(path)
    check_folder(path)
    if path.is_dir() and not is_run(path) and any(not _is_own(entry.name) for entry in path.iterdir()):
        raise UserError(f"{path} holds files that are not a run's; give a new folder with --out")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is training in {path}; wait for it, or choose another --out"
            ) from None
        clear_folder(path)
        try:
            yield RunFolder(path)
        finally:
            if [entry.name for entry in path.iterdir()] == [LOCK]:
                (path / LOCK).unlink()
                path.rmdir()
                # Another run may have moved into a parent folder meanwhile.
                with suppress(OSError):
                    for folder in made[1:]:
                        folder.rmdir()


def _is_own(name: str) -> bool:
    """Whether a name in a folder without a run is the lock, or a rest of a run that was killed at once."""
    return name == LOCK or is_rest(name)


@contextmanager
def opened(path: Path, world: World) -> Iterator["RunFolder"]:
    """`locked` for the process that writes; the other processes of a run only read."""
    with ExitStack() as stack:
        yield world.run_on_all(
            lambda: stack.enter_context(locked(path)) if world.is_rank0 else ReadOnlyRunFolder(Path(path))
        )


def is_run(path: Path) -> bool:
    """Whether training has begun in this folder before."""
    return any((Path(path) / name).exists() for name in (RECIPE, METRICS, listing.CHECKPOINTS))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of the run at `path`, without a line that a crash cut short."""
    records = []
    file = Path(path) / METRICS
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def save_micro_batch_limit(path: Path, rows: int) -> None:
    """Limit the next start of the run to `rows` windows at a time. Any process may call it."""
    write_atomically(Path(path) / LIMIT, f"{rows}\n")


def micro_batch_limit(path: Path) -> int | None:
    """The limit `save_micro_batch_limit` left, if any. Raises Failure where the file holds no number."""
    file = Path(path) / LIMIT
    try:
        return max(1, int(file.read_text())) if file.is_file() else None
    except ValueError:
        raise Failure(f"{file} does not hold a number; delete it") from None


class RunFolder:
    """A run folder this process may write to; obtained from `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self, recipe: Recipe, step: int, history: Path | None = None) -> None:
        """Make the folder ready to continue after `step`.

        Saves the recipe, removes half-written checkpoints and drops the metrics of later steps.

        Args:
            recipe: The resolved recipe.
            step: Steps taken so far.
            history: The run whose metrics up to `step` lead here; this one by default.
        """
        listing.sweep(self.path)
        # The recipe says whose run this is, so it is there before anything else.
        write_atomically(self.path / RECIPE, recipe_text(recipe))
        self._keep_metrics(read_metrics(history or self.path), step)

    def _keep_metrics(self, records: list[dict[str, Any]], step: int) -> None:
        lines = [
            json.dumps(record, ensure_ascii=False) + "\n" for record in records if record["step"] <= step
        ]
        write_atomically(self.path / METRICS, "".join(lines))

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl, completely or not at all.

        Raises OSError when the disk is full.
        """
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with open(self.path / METRICS, "ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(line)
                # A full disk may take a part without an error.
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / METRICS))
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise

    def validations(self) -> list[dict[str, Any]]:
        """The validation records so far."""
        return [record for record in read_metrics(self.path) if record["kind"] == "validation"]

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint of `step`."""
        return self.path / listing.CHECKPOINTS / listing.name_of(step)

    def check_space(self, needed: int) -> None:
        """Raise UserError when the run's checkpoints, of `needed` bytes together, do not fit on the disk.

        Those that are there already count as space, since later ones take their place.
        """
        free = shutil.disk_usage(self.path).free
        held = sum(
            file.stat().st_size for file in (self.path / listing.CHECKPOINTS).rglob("*") if file.is_file()
        )
        if free + held < needed:
            raise UserError(
                f"the run's checkpoints take {byte_size(needed)}, the disk of {self.path} has "
                f"{byte_size(free)} free; choose an --out on another disk, or a smaller train.keep"
            )

    def settle(self, best: dict[str, Any] | None, keep: int) -> None:
        """Record which checkpoint is best; delete all but the best, the last good and the `keep` newest."""
        folder = self.checkpoint(best["step"]) if best else None
        if best and folder and folder.is_dir():
            write_atomically(
                self.path / BEST,
                json.dumps({**best, "checkpoint": str(folder.relative_to(self.path))}) + "\n",
            )
        listing.prune(self.path, keep, [path for path in (folder, self.last_good()) if path])

    def last_good(self) -> Path | None:
        """The newest checkpoint of a calm step: neither skipped nor a loss spike."""
        for path in reversed(listing.list_checkpoints(self.path)):
            # A damaged checkpoint is passed over.
            with suppress(Failure):
                if checkpoint.read_state(path).get("calm", True):
                    return path
        return None

    def drop_after(self, step: int) -> None:
        """Delete checkpoints and metrics after `step`: the run has gone back there."""
        for path in listing.list_checkpoints(self.path):
            if int(path.name.removeprefix("step-")) > step:
                listing.remove(path)
        self._keep_metrics(read_metrics(self.path), step)


class ReadOnlyRunFolder(RunFolder):
    """The run folder for a process that is not the writer: every write is left to the first process."""

    def prepare(self, recipe: Recipe, step: int, history: Path | None = None) -> None:
        """Nothing: the first process does it."""

    def log(self, record: dict[str, Any]) -> None:
        """Nothing: the first process does it."""

    def check_space(self, needed: int) -> None:
        """Nothing: the first process does it."""

    def settle(self, best: dict[str, Any] | None, keep: int) -> None:
        """Nothing: the first process does it."""

    def drop_after(self, step: int) -> None:
        """Nothing: the first process does it."""
