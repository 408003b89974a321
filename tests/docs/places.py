"""A place is a folder in which the commands of a page run one after the other, shortened to seconds.

Two pages share a place where the commands of one are the first commands of the other, as in a page and its
translation.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from urllib.request import urlopen

from braingpt.cli.console import guarded
from braingpt.cli.main import app

WIDTH = "80"  # of the terminal in which the pages' outputs were printed
TRAINING = ("steps=4", "warmup=1", "batch=2", "context=64", "eval_every=2", "eval_windows=2", "save_every=2")
# What is appended to a command that would take minutes, by the command's first words. An option given twice
# takes the last value.
SHORT = {
    "data prepare sample": ["--workers", "1"],
    "data prepare": ["--workers", "1", "--max-samples", "200"],
    "quickstart": ["--minutes", "0.02"],
    "train": [f"--set=train.{item}" for item in TRAINING],
    "eval": ["--windows", "2", "--context", "64", "--limit", "4"],
    "generate": ["--max-new-tokens", "4"],
    "chat": ["--max-new-tokens", "4"],
    "calibrate": ["--windows", "2"],
    "bench kernels": ["--rounds", "1"],
    "bench": shlex.split(
        "--steps 2 --batch 1 --context 32 --rounds 1 --contexts 8 --batches 1"
        " --new-tokens 2 --minutes 0.001 --windows 2"
    ),
    "inspect-sparsity": ["--context", "64", "--rounds", "1"],
}
# A model that grows in five stages needs more steps.
GROWING = [
    f"--set=train.{item}" for item in ("steps=32", "batch=1", "context=16", "eval_every=32", "eval_windows=1")
]
# Corpora that come without a network; all others are read from the small copies below $BRAINGPT_CORPORA.
WITHOUT_NETWORK = ("sample", "text")
# What other tests do at its real size: `bench` measures memory in a process for each architecture, and
# memories are fitted with texts.
SMALLER = {
    "episodic.calibrate.TAUGHT": 16,
    "episodic.calibrate.FOREIGN": 32,
    "bench.few_shot.FACTS_PER_LANGUAGE": 2,
    "bench.runner.training_memory": lambda *_, **__: 10**8,
}


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    printed: str  # standard output and error, in their order
    errors: frozenset[str] = frozenset()  # the lines of standard error


class Place:
    """A folder, and the outcomes of the commands that have run there."""

    def __init__(self, folder: Path, corpora: Path, commands: tuple[str, ...]) -> None:
        self.folder, self.corpora, self.commands = folder, corpora, commands
        self.outcomes: list[Outcome] = []

    def outcome(self, number: int) -> Outcome:
        """Of command `number`, which runs first where it has not, after those before it."""
        with self._inside():
            while len(self.outcomes) <= number:
                self.outcomes.append(run(self.commands[len(self.outcomes)]))
        return self.outcomes[number]

    def run_program(self, source: str, name: str) -> str:
        """What a Python example printed, run after all commands."""
        if self.commands:
            self.outcome(len(self.commands) - 1)
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


def run(line: str) -> Outcome:
    """One command of a page, shortened. `echo TEXT | braingpt ...` is given the text."""
    *before, line = line.split(" | ")
    typed = "\n".join(shlex.split(before[0])[1:]) + "\n" if before else ""
    line = re.sub(r"^\w+=\S+ ", "", line)  # OMP_NUM_THREADS=1 braingpt ...
    words = [os.path.expandvars(word) for word in shlex.split(line)[1:]]
    words += next((extra for start, extra in SHORT.items() if line.startswith(f"braingpt {start}")), [])
    words += GROWING if "train.growth" in line else []
    if words[:2] == ["data", "prepare"] and words[2] not in WITHOUT_NETWORK and "--source" not in words:
        words += ["--source", os.environ["BRAINGPT_CORPORA"]]
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
