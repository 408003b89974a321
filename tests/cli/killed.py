"""A command stopped at the changes of the file system it makes (`tests/crash.py`): what was
there is whole, the same command then works, and it leaves what an undisturbed one leaves.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from tests.crash import at_every_change, hidden

CPU = ("--device", "cpu")


@dataclass
class Case:
    """A command, what is there before it, and how many of its changes it is stopped at."""

    words: tuple[str, ...]
    begin: Callable[[], object] = lambda: None
    points: int = 4
    # Hidden names that stay: the lock of a run, which is never removed.
    stays: tuple[str, ...] = ()
    checks: list[Callable[[], object]] = field(default_factory=list)


def braingpt(*words: str) -> None:
    """The command line in this process; it must end well. Nothing is printed."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere) if not os.environ.get("SHOW") else contextlib.nullcontext(),
    ):
        code = guarded(lambda: app(list(words), standalone_mode=False))
    assert code == 0, f"{words} ended with {code}"


def whole(path: Path, before: dict[Path, bytes]) -> None:
    """A file is as it was before, or whole of its kind."""
    if before.get(path) == path.read_bytes():
        return
    if path.suffix == ".json":
        json.loads(path.read_text("utf-8"))
    elif path.suffix == ".html":
        assert path.read_text("utf-8").rstrip().endswith("</html>"), path
    elif path.suffix in (".png", ".svg", ".md", ".memory"):
        assert path.read_bytes(), path


def contents(place: Path) -> dict[Path, bytes]:
    """What every visible file holds."""
    return {path: path.read_bytes() for path in visible(place)}


def visible(place: Path) -> list[Path]:
    """The files below a folder, those of hidden folders left out."""
    found = []
    for folder, folders, files in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder) / name for name in files if not name.startswith(".")]
    return sorted(found)


def killed(place: Path, case: Case) -> int:
    """Stop the command of a case at its changes; the number of changes."""
    before: dict[Path, bytes] = {}
    expected: list[Path] = []

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        os.chdir(place)
        case.begin()
        before.clear()
        before.update(contents(place))

    def check() -> None:
        for path in visible(place):
            whole(path, before)
        for one in case.checks:
            one()

    def check_end() -> None:
        """What the first run, which nobody stopped, has left, is what the others leave."""
        found = [path.relative_to(place) for path in visible(place)]
        expected.extend([] if expected else found)
        assert found == expected, set(found) ^ set(expected)
        assert [name for name in hidden(place) if not name.endswith(case.stays or ("\0",))] == []

    return at_every_change(begin, lambda: braingpt(*case.words), check, case.points, check_end)
