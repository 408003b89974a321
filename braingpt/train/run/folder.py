"""The run folder: one writer at a time, the metrics line by line, and which checkpoint is best.

runs/NAME/
  recipe.yaml     the resolved recipe
  metrics.jsonl   one JSON object a line (`metrics.py`); metrics.damaged keeps lines that are no records
  lineage.json    data, settings and parent of each start (`lineage.py`)
  best.json       step, loss and folder of the checkpoint with the lowest validation loss
  checkpoints/    step-0000250/ ...
  micro_batch     windows at a time that the next start may take at most, where one of several processes
                  ran out of memory
  wandb-id        the name of the run at Weights & Biases, where it is logged there
  report.md       the report, with curves.svg and curves.png, written by the command line
"""

import errno
import fcntl
import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from braingpt.checkpoint import checkpoint, listing
from braingpt.distributed.world import World
from braingpt.errors import Failure, UserError
from braingpt.recipes import Recipe, load_recipe, recipe_text
from braingpt.train.run.metrics import DAMAGED, METRICS, in_words, read_lines
from braingpt.train.run.metrics import read_metrics as read_metrics
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.formatting import byte_size
from braingpt.utils.paths import check_folder
from braingpt.utils.scratch import clear_folder, is_rest

RECIPE, BEST, LOCK, LIMIT = "recipe.yaml", "best.json", ".lock", "micro_batch"


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
        if not os.path.exists(path / LOCK) or not os.path.samestat(
            os.fstat(lock.fileno()), os.stat(path / LOCK)
        ):
            # The holder before has removed it meanwhile, so another process may hold a new one.
            raise UserError(f"another process has just left {path}; run the command again")
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


def run_recipe(run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run folder.

    Args:
        run: The run folder.
        overrides: Values to replace.

    Raises:
        UserError: A value is wrong, or recipe.yaml cannot be read; the message says where a copy is.
    """
    path = Path(run) / RECIPE
    try:
        load_recipe(path)
    except UserError as error:
        last = listing.newest(run)
        copy = f"; restore it: cp {shlex.quote(str(last / RECIPE))} {shlex.quote(str(path))}" if last else ""
        raise UserError(f"{error}{copy}") from None
    return load_recipe(path, list(overrides))


def run_of(folder: Path) -> Path:
    """The run folder of a checkpoint; the checkpoint's own parent where it was moved out of one."""
    return folder.parent.parent if folder.parent.name == listing.CHECKPOINTS else folder.parent


def read_best(path: Path, note: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
    """What best.json of the run at `path` says; None, with a note where it is damaged, if it says nothing."""
    file = Path(path) / BEST
    if not file.is_file():
        return None
    try:
        best = json.loads(file.read_text(encoding="utf-8"))
        sound = (
            type(best["step"]) is int and math.isfinite(best["loss"]) and isinstance(best["checkpoint"], str)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        sound, best = False, None
    if not sound:
        note(f"{file} is damaged; the next validation of the run writes it again")
    return best if sound else None


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

    def prepare(
        self,
        recipe: Recipe,
        step: int,
        history: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
        validated_on: str | None = None,
    ) -> None:
        """Make the folder ready to continue after `step`.

        Saves the recipe, removes half-written checkpoints and drops the metrics of later steps.

        Args:
            recipe: The resolved recipe.
            step: Steps taken so far.
            history: The run whose metrics up to `step` lead here; this one by default.
            note: Receives a line where metrics are damaged; the damaged lines are set aside.
            validated_on: The identity of validations that name none; None: they stay as they are.
        """
        listing.sweep(self.path)
        # The recipe says whose run this is, so it is there before anything else.
        write_atomically(self.path / RECIPE, recipe_text(recipe))
        source = history or self.path
        records, damaged = read_lines(source)
        if damaged:
            with open(self.path / DAMAGED, "ab") as file:
                file.write(b"".join(line + b"\n" for line in damaged.values()))
            note(f"{in_words(source, damaged)}; kept in {self.path / DAMAGED}")
        if validated_on is not None:
            named = {"validated_on": validated_on}
            records = [named | record if record["kind"] == "validation" else record for record in records]
        self._keep_metrics(records, step)

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
        if best is None:
            # A former best was measured on other text.
            (self.path / BEST).unlink(missing_ok=True)
        if best and folder and folder.is_dir():
            write_atomically(
                self.path / BEST,
                json.dumps({**best, "checkpoint": str(folder.relative_to(self.path))}) + "\n",
            )
        listing.prune(self.path, keep, [path for path in (folder, self.last_good()) if path])

    def last_good(self, verified: bool = False) -> Path | None:
        """The newest checkpoint of a calm step: neither skipped nor a loss spike.

        `verified`: every file of it is checked as well.
        """
        for path in reversed(listing.list_checkpoints(self.path)):
            # A damaged checkpoint is passed over.
            with suppress(Failure):
                state = checkpoint.read_state(path)
                if state.get("calm", True):
                    if verified:
                        checkpoint.verify(path, state)
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

    def prepare(
        self,
        recipe: Recipe,
        step: int,
        history: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
        validated_on: str | None = None,
    ) -> None:
        """Nothing: the first process does it."""

    def log(self, record: dict[str, Any]) -> None:
        """Nothing: the first process does it."""

    def check_space(self, needed: int) -> None:
        """Nothing: the first process does it."""

    def settle(self, best: dict[str, Any] | None, keep: int) -> None:
        """Nothing: the first process does it."""

    def drop_after(self, step: int) -> None:
        """Nothing: the first process does it."""
