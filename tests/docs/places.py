"""A place is a folder in which the commands of a page have run, one after the other, shortened to seconds.

Pages whose first commands are the same share what those commands left behind: each command with the same
commands before it runs once, and where two pages continue differently each continues in a copy of the folder.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO
from unittest import mock
from urllib.request import urlopen

from braingpt.bench.kernels.runner import KernelSettings, measured
from braingpt.cli.console import guarded
from braingpt.cli.main import app

WIDTH = "80"  # of the terminal in which the pages' outputs were printed
# What is set in a training, by words of its command; the first that fits counts. A model that grows in five
# stages needs more steps, and a run that continues needs steps that are left.
SETTINGS = {
    "train.growth": (
        "steps=32",
        "warmup=1",
        "batch=1",
        "context=16",
        "eval_every=32",
        "eval_windows=1",
        "save_every=16",
    ),
    "--resume": ("steps=8",),
    "": ("steps=4", "warmup=1", "batch=2", "context=64", "eval_every=2", "eval_windows=2", "save_every=2"),
}
# What is appended to a command that would take minutes, by the command's first words. An option given twice
# takes the last value.
SHORT = {
    "data prepare sample": ["--workers", "1"],
    "data prepare": ["--workers", "1", "--max-samples", "200"],
    "quickstart": ["--minutes", "0.02"],
    "eval": ["--windows", "2", "--context", "64", "--limit", "4"],
    "generate": ["--max-new-tokens", "4"],
    "chat": ["--max-new-tokens", "4"],
    "calibrate": ["--windows", "2"],
    "bench kernels": ["--rounds", "1"],
    "bench": shlex.split(
        "--steps 2 --batch 1 --context 32 --rounds 1 --contexts 8 --batches 1"
        " --new-tokens 2 --minutes 0.001 --windows 1"
    ),
    "inspect-sparsity": ["--context", "64", "--rounds", "1"],
}
# Corpora that come without a network; all others are read from the small copies below $BRAINGPT_CORPORA.
WITHOUT_NETWORK = ("sample", "text")


def _in_this_process(settings: KernelSettings, operations: Sequence[str], _: IO[str]) -> SimpleNamespace:
    """A worker of `bench kernels` that has measured nothing yet and does so as it is read."""
    records = measured(replace(settings, operations=tuple(operations)))
    return SimpleNamespace(stdout=map(json.dumps, records), wait=lambda: 0, returncode=0)


# What other tests do at its real size or in processes of their own: benchmarks, fitting a memory, a plan's
# trial of a few layers, the texts of a report, a dense twin.
SMALLER = {
    "bench.clock.COLD_BYTES": {"cpu": 1 << 20, "cuda": 1 << 20},
    "bench.few_shot.FACTS_PER_LANGUAGE": 2,
    "bench.few_shot.REPEATED": 8,
    "bench.few_shot.ROWS": 2,
    "bench.kernels.runner._process": _in_this_process,
    "bench.learning.PARTS": 1,
    "bench.limits.BUFFER_BYTES": {"cpu": 1 << 20, "cuda": 1 << 20},
    "bench.runner.training_memory": lambda *_, **__: 10**8,
    "cli.train.SAMPLE_TOKENS": 4,
    "episodic.calibrate.FOREIGN": 16,
    "episodic.calibrate.TAUGHT": 8,
    "inspection.dense_twin.STEPS": 4,
    "train.plan.step_cost.LEAST_TOKENS": {"cpu": 64, "cuda": 64},
}

# What is typed into a command, and its words.
Words = tuple[str, ...]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    printed: str  # standard output and error, in their order
    errors: frozenset[str] = frozenset()  # the lines of standard error


class Place:
    """What some commands, one after the other, leave behind in a folder that was empty before them."""

    def __init__(self, root: Path, corpora: Path, before: "Place | None" = None, words: Words = ()) -> None:
        self.root, self.corpora, self.before, self.words = root, corpora, before, words
        self.after: dict[Words, Place] = {}
        self._outcome: Outcome | None = None
        self._folder: Path | None = None

    def then(self, line: str) -> "Place":
        """The place after one more command."""
        words = shortened(line)
        if words not in self.after:
            self.after[words] = Place(self.root, self.corpora, self, words)
        return self.after[words]

    @property
    def folder(self) -> Path:
        """Where the command runs: the folder of the commands before it, or a copy where pages part."""
        if self._folder is None:
            before = self.before if self.before and self.before.words else None
            if before:
                before.outcome()
            if before and len(before.after) == 1:
                self._folder = before.folder
            else:
                self._folder = Path(tempfile.mkdtemp(dir=self.root))
                if before:
                    shutil.copytree(before.folder, self._folder, dirs_exist_ok=True)
        return self._folder

    def outcome(self) -> Outcome:
        """Of the last command, which runs where it has not, after those before it."""
        if self._outcome is None:
            with self._inside():
                self._outcome = run(self.words)
        return self._outcome

    def run_program(self, source: str, name: str) -> str:
        """What a Python example printed, run after the last command."""
        if self.words:
            self.outcome()
        with self._inside(), _captured() as (screen, _):
            exec(
                compile(re.sub(r"max_new_tokens=\d+", "max_new_tokens=3", source), name, "exec"),
                {"__name__": "__main__"},
            )
        return screen.getvalue()

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        environment = {"COLUMNS": WIDTH, "BRAINGPT_CORPORA": str(self.corpora)}
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, environment))
            for name, value in SMALLER.items():
                stack.enter_context(mock.patch(f"braingpt.{name}", value))
            stack.enter_context(contextlib.chdir(self.folder))
            yield


def shortened(line: str) -> Words:
    """What is typed into a command of a page, and its words, shortened; like commands become equal."""
    *before, line = line.split(" | ")
    typed = "\n".join(shlex.split(before[0])[1:]) + "\n" if before else ""
    line = re.sub(r"^\w+=\S+ ", "", line)  # OMP_NUM_THREADS=1 braingpt ...
    words = shlex.split(line)[1:]
    for start, settings in SETTINGS.items():
        if line.startswith("braingpt train ") and start in line:
            keys = tuple(f"train.{item.split('=')[0]}=" for item in settings)
            words = _without(words, keys) + [f"--set=train.{item}" for item in settings]
            break
    words += next((extra for start, extra in SHORT.items() if line.startswith(f"braingpt {start}")), [])
    if words[:2] == ["data", "prepare"] and words[2] not in WITHOUT_NETWORK and "--source" not in words:
        words += ["--source", "$BRAINGPT_CORPORA"]
    return typed, *words


def _without(words: list[str], keys: tuple[str, ...]) -> list[str]:
    """The words without those that set one of the recipe's keys."""
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--set" and word.startswith(keys):
            kept.pop()
        else:
            kept.append(word)
    return kept


def run(shortened: Words) -> Outcome:
    """One command, as `shortened` returns it."""
    typed, *words = shortened
    words = [os.path.expandvars(word) for word in words]
    if words[0] == "serve":
        return _serve(words)
    with _captured(typed) as (screen, errors):
        code = guarded(lambda: app(words, standalone_mode=False))
    return Outcome(
        code, screen.getvalue(), frozenset(line.rstrip() for line in errors.getvalue().splitlines())
    )


def _serve(words: list[str]) -> Outcome:
    """A server is waited for and stopped; it ends its process, so it gets one."""
    command = [sys.executable, "-m", "braingpt", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline()]
        while "Ctrl-C stops" not in lines[-1] and lines[-1]:
            lines.append(process.stdout.readline())
        if address := re.search(r"http://[^/]+/", lines[-1]):
            urlopen(f"{address[0]}health", timeout=60).read()
        process.terminate()
        lines += process.stdout.read().splitlines(keepends=True)
        return Outcome(process.wait(), "".join(lines), frozenset(line.rstrip() for line in lines))


class _Both(io.StringIO):
    """Standard error that also appears on standard output."""

    def __init__(self, screen: io.StringIO) -> None:
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        self.screen.write(text)
        return super().write(text)


@contextlib.contextmanager
def _captured(typed: str = "") -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What a reader sees, standard output and error together, and standard error alone."""
    screen = io.StringIO()
    errors = _Both(screen)
    with (
        contextlib.redirect_stdout(screen),
        contextlib.redirect_stderr(errors),
        mock.patch("sys.stdin", io.StringIO(typed)),
    ):
        yield screen, errors
