"""Every command whose reader leaves: `braingpt ... | head -1`, and commands without standard streams."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import typer

from braingpt.cli import main
from braingpt.tokenizer import Tokenizer, training
from braingpt.train.run.folder import read_metrics
from tests.cli.test_output_targets import commands
from tests.fixed_texts import documents
from tests.tiny_runs import TINY

SETS = [word for value in TINY for word in ("--set", value)]
TRAIN = ["train", "--recipe", "nano-dense", "--data", "data/sample", *SETS, "--device", "cpu"]
# The words of each command, and what it must have written. {} is a folder of the test.
CASES: dict[str, tuple[list[str], str | None]] = {
    "": (["--help"], None),
    "train": ([*TRAIN, "--out", "{}/run"], "run/report.md"),
    "train --plan": ([*TRAIN, "--plan"], None),
    "eval": (
        ["eval", "runs/nano-v2", "--windows", "1", "--context", "32", "--json", "--html", "{}/page"],
        "page",
    ),
    "generate": (["generate", "runs/nano-v2", "--prompt", "a", "--max-new-tokens", "2000"], None),
    "generate --json": (["generate", "runs/nano-v2", "--max-new-tokens", "9", "--json"], None),
    "chat": (["chat", "runs/nano-v2", "--max-new-tokens", "9"], None),
    "export": (["export", "runs/nano-v2", "{}/out"], "out/state.json"),
    "inspect-sparsity": (["inspect-sparsity", "runs/nano-v2", "--rounds", "0", "--html", "{}/page"], "page"),
    "doctor": (["doctor"], None),
    "doctor --json": (["doctor", "--json"], None),
    "tokenizer train": (
        ["tokenizer", "train", "{}/a.jsonl", "--vocab", "300", "--out", "{}/t"], "t/tokenizer.json"
    ),
    "tokenizer report": (["tokenizer", "report", "{}/a.jsonl"], None),
    "tokenizer encode": (["tokenizer", "encode", "하나 둘", "--json"], None),
    "data list": (["data", "list"], None),
    "data info": (["data", "info", "data/sample"], None),
    "data sample": (["data", "sample", "data/sample"], None),
    "data report": (["data", "report", "data/sample", "--out", "{}/page"], "page"),
    "data verify": (["data", "verify", "data/sample"], None),
    "data prepare": (["data", "prepare", "text", "{}/a.jsonl", "--out", "{}/data"], "data/manifest.json"),
    "recipes": (["recipes"], None),
    "recipes show": (["recipes", "show", "nano-v2"], None),
    "runs list": (["runs", "list"], None),
}  # fmt: skip
# Whose output and way of printing are those of a command above, or which need minutes.
LEFT_OUT = {
    "quickstart", "serve", "bench compare", "bench kernels", "calibrate", "tokenizer add-language",
    "data join", "data search", "memory add", "memory list", "memory forget", "runs show", "runs compare",
}  # fmt: skip


def run(words: list[str], prepare: Callable[[], None]) -> int:
    """The exit code of the command in a process whose standard streams `prepare` has set."""
    sys.stdout.flush()
    if not (process := os.fork()):
        try:
            prepare()
            sys.stdin, sys.stdout, sys.stderr = (
                _stream(number, mode) for number, mode in enumerate(("r", "w", "w"))
            )
            sys.argv = ["braingpt", *words]
            main.run()
        except SystemExit as stop:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
        finally:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _stream(number: int, mode: str):
    """The stream as Python opens it; None where the descriptor is closed."""
    try:
        return os.fdopen(number, mode, encoding="utf-8", closefd=False)
    except OSError:
        return None


def reader_gone(errors: Path, both: bool = False) -> Callable[[], None]:
    def prepare() -> None:
        read, write = os.pipe()
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(write, 1)
        if both:
            os.dup2(write, 2)

    return prepare


@pytest.fixture
def place(here, tmp_path, monkeypatch) -> Path:
    def trained(texts: Iterable[str], entries: int) -> Tokenizer:
        """The trainer keeps threads that a fork of this process would wait for."""
        assert [*texts] and entries > 256
        return Tokenizer([*(bytes([value]) for value in range(256)), b"ab"])

    monkeypatch.setattr(training, "train", trained)
    lines = [json.dumps({"text": text}) for text in documents("en", 20)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_the_table_has_every_command() -> None:
    assert set(commands(typer.main.get_command(main.app))) <= set(CASES) | LEFT_OUT


@pytest.mark.parametrize("name", CASES)
def test_a_reader_that_leaves_is_no_failure_and_the_work_is_done(name, place) -> None:
    words, made = CASES[name]
    words = [word.replace("{}", str(place)) for word in words]
    began = time.monotonic()
    assert run(words, reader_gone(place / "errors")) == 0, (place / "errors").read_text()
    told = (place / "errors").read_text(encoding="utf-8")
    assert "Traceback" not in told and "BrokenPipe" not in told and "Exception ignored" not in told
    assert made is None or (place / made).exists()
    if name == "generate":
        # It stops instead of writing text for nobody.
        assert time.monotonic() - began < 20


def test_training_goes_on_to_the_end_without_its_readers(place) -> None:
    words = [word.replace("{}", str(place)) for word in CASES["train"][0]]
    assert run(words, reader_gone(place / "errors", both=True)) == 0
    records = [record for record in read_metrics(place / "run") if record["kind"] == "train"]
    assert records[-1]["step"] == 20 and list((place / "run" / "checkpoints").glob("step-0000020"))


def test_a_stop_without_readers_is_still_a_stop(place) -> None:
    """The exit code is the one of the work: 130 for a training that was stopped."""
    words = [word.replace("{}", str(place)) for word in CASES["train"][0]]

    def prepare() -> None:
        reader_gone(place / "errors", both=True)()
        if not os.fork():
            while not (place / "run" / "metrics.jsonl").exists() or not read_metrics(place / "run"):
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0)

    assert run([*words, "--set", "train.steps=2000"], prepare) == 130
    assert list((place / "run" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams(place, closed) -> None:
    def prepare() -> None:
        reader_gone(place / "errors", both=True)()
        for number in closed:
            os.close(number)

    assert run(["export", "runs/nano-v2", str(place / "out")], prepare) == 0
    assert run(["eval", "runs/nano-v2", "--windows", "1", "--context", "32", "--json"], prepare) == 0
    assert run(["generate", "runs/nano-v2", "--max-new-tokens", "5"], prepare) == 0
    assert run(["generate", "nowhere"], prepare) == 2
    assert (place / "out" / "state.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    "words", [["doctor"], ["recipes", "show", "nano-v2"], ["data", "list", "--json"]], ids=str
)
def test_output_on_a_full_disk_is_one_line(place, words) -> None:
    def prepare() -> None:
        reader_gone(place / "errors")()
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    assert run(words, prepare) == 1
    assert (place / "errors").read_text() == (
        "braingpt: the disk is full; free some space and run the command again\n"
    )
