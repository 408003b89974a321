"""Commands that write, stopped at the changes of the file system they make (`killed.py`)."""

import copy
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from braingpt.bench import runner as bench_runner
from braingpt.bench.kernels import runner as kernels_runner
from braingpt.bench.report import page as bench_page
from braingpt.checkpoint import checkpoint
from braingpt.cli import bench, bench_kernels, quickstart
from braingpt.cli.main import app
from braingpt.data.shards.manifest import read_manifest
from braingpt.episodic.memory import EpisodicMemory
from braingpt.episodic.storage import load_memory
from braingpt.episodic.store import Store
from braingpt.recipes import save_recipe
from braingpt.tokenizer import Tokenizer, training
from braingpt.train import step_time
from braingpt.train.run.folder import read_metrics
from tests.cli.killed import CPU, Case, braingpt, killed
from tests.crash import at_every_change, hidden
from tests.fixed_texts import documents
from tests.tiny_runs import TINY, tiny


def files_before() -> None:
    for name in ("out.json", "out.html"):
        Path(name).write_text("{}" if name.endswith("json") else "<html></html>")


MEASURED = ("--windows", "1", *CPU)
REPORTS = ("--json-file", "out.json", "--html", "out.html")


def measuring(workspace: Path) -> dict[str, Case]:
    run, first, data = (str(workspace / name) for name in ("runs/nano-v2", "runs/nano-v1", "data/sample"))
    return {
        "eval": Case(
            ("eval", run, "--data", data, "--tasks", "perplexity", *REPORTS, *MEASURED), files_before, 3
        ),
        "calibrate": Case(
            ("calibrate", first, "--data", data, "--json-file", "out.json", *MEASURED), points=3
        ),
        "inspect-sparsity": Case(
            ("inspect-sparsity", run, "--context", "32", "--rounds", "0", *REPORTS, "--png", "png", *CPU),
            lambda: Path("data").symlink_to(workspace / "data"),
            points=2,
        ),
        "export": Case(("export", run, "out"), checks=[lambda: sound_checkpoint(Path("out"))]),
        "export --dtype": Case(
            ("export", run, "out", "--dtype", "bfloat16"),
            lambda: Path("out").mkdir(),
            points=3,
            checks=[lambda: sound_checkpoint(Path("out"))],
        ),
        "data report": Case(("data", "report", data, "--out", "out.html"), files_before, 3),
    }  # fmt: skip


def sound_checkpoint(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        checkpoint.verify(folder)


@pytest.mark.parametrize(
    "name",
    [
        "eval",
        "calibrate",
        "inspect-sparsity",
        "export",
        pytest.param("export --dtype", marks=pytest.mark.slow),
        "data report",
    ],
)
def test_reports_and_exports(place: Path, workspace: Path, name: str) -> None:
    assert killed(place, measuring(workspace)[name]) >= 2


@pytest.mark.parametrize(
    "name", ["memory add", pytest.param("memory add to one", marks=pytest.mark.slow), "memory forget"]
)
def test_memory(place: Path, trained, calibrated, tmp_path: Path, monkeypatch, name: str) -> None:
    """Taught and forgotten texts are all there or none. A new memory takes keys and gate that are there."""
    fresh = EpisodicMemory(
        calibrated.weights, calibrated.maker, calibrated.gate, Store(calibrated.store.keys_ND.shape[1]), {}
    )
    monkeypatch.setattr(EpisodicMemory, "fresh", lambda *_: copy.deepcopy(fresh))
    run, made = str(trained / "runs" / "nano-v2"), tmp_path / "made.memory"
    braingpt("memory", "add", str(made), "콩이는 고양이다.", "--run", run, *CPU)
    words = {
        "memory add": ("add", "m.memory", "콩이는 고양이다.", "둘째.", "--run", run, *CPU),
        "memory add to one": ("add", "m.memory", "콩이는 고양이다.", "둘째.", "--run", run, *CPU),
        "memory forget": ("forget", "m.memory", "all"),
    }[name]

    def check() -> None:
        texts = list(load_memory(Path("m.memory")).store.texts.values()) if Path("m.memory").exists() else []
        assert texts in ([], ["콩이는 고양이다."], ["콩이는 고양이다.", "둘째."])

    case = Case(
        ("memory", *words),
        (lambda: None) if name == "memory add" else lambda: shutil.copy(made, "m.memory"),
        points=3,
        checks=[check],
    )
    assert killed(place, case) >= 3


TRAINING_TEXTS = documents("ko", 20) + documents("en", 20)
TOKENIZER_TEXTS = ("texts.txt", "--out", "t")


@pytest.mark.parametrize("name", ["train", "add-language"])
@pytest.mark.parametrize("there", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tokenizer(place: Path, monkeypatch: pytest.MonkeyPatch, name: str, there: bool) -> None:
    """The trainer keeps threads that a fork of this process would wait for, so that it trains here alone."""
    trained = training.train(TRAINING_TEXTS, 270)

    def train(texts: Iterable[str], entries: int) -> Tokenizer:
        assert [*texts] and entries == 270
        return trained

    monkeypatch.setattr(training, "train", train)
    old = Tokenizer([*(bytes([value]) for value in range(256)), b"ab"])

    def begin() -> None:
        Path("texts.txt").write_text("\n".join(TRAINING_TEXTS), encoding="utf-8")
        old.save(Path("old"))
        if there:
            old.save(Path("t"))

    def check() -> None:
        if there or Path("t").exists():
            Tokenizer.load("t")

    words = {
        "train": ("train", *TOKENIZER_TEXTS, "--vocab", "270"),
        "add-language": ("add-language", "pt", *TOKENIZER_TEXTS, "--entries", "8", "--tokenizer", "old"),
    }[name]
    assert killed(place, Case(("tokenizer", *words), begin, checks=[check])) >= 6


STEPS = ("train.steps=4", "train.save_every=2", "train.eval_every=2", "model.layers=1")


@pytest.mark.parametrize("name", ["fresh", pytest.param("resumed", marks=pytest.mark.slow)])
def test_train(place: Path, workspace: Path, name: str) -> None:
    def begin() -> None:
        save_recipe(tiny("dense", *STEPS), Path("r.yaml"))
        if name == "resumed":
            braingpt(*words, "--set", "train.steps=2")

    data = str(workspace / "data" / "sample")
    words = ("train", "--recipe", "r.yaml", "--data", data, "--out", "run", "--resume", "auto", *CPU)

    def check() -> None:
        for folder in Path("run").glob("checkpoints/step-*"):
            checkpoint.verify(folder)

    assert killed(place, Case(words, begin, 2, stays=(".lock",), checks=[check])) >= 30
    steps = [record["step"] for record in read_metrics(Path("run")) if record["kind"] == "train"]
    assert steps == [1, 2, 3, 4]


def test_quickstart(place: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model on a small corpus; the run of an earlier quickstart is replaced."""
    from braingpt import recipes

    load = recipes.load_recipe
    monkeypatch.setattr(step_time, "step_seconds", lambda *_: 1e9)

    def smaller(name: str, overrides: Sequence[str] = ()) -> recipes.Recipe:
        return load(name, [*TINY, *overrides] if name == "nano-v2" else [])

    monkeypatch.setattr(recipes, "load_recipe", smaller)
    monkeypatch.setattr(quickstart, "NEW_TOKENS", 2)
    monkeypatch.setattr(quickstart, "COUNTED_TOKENS", 64)

    def begin() -> None:
        shutil.copytree(workspace / "data" / "sample", "data/quickstart")
        # As an earlier one has prepared it.
        monkeypatch.setattr("braingpt.data.prepare.pipeline.prepare", lambda request, _: _Prepared())
        braingpt("quickstart", "--minutes", "0.02")

    class _Prepared:
        fresh = False
        manifest = read_manifest(workspace / "data" / "sample")

    case = Case(("quickstart", "--minutes", "0.02"), begin, 2, stays=(".lock",))
    assert killed(place, case) >= 30


def test_quickstart_replaces_its_run_whenever_it_is_stopped(place: Path) -> None:
    """The last changes of the deletion are like the others, so that a few files stand for a run."""
    run = place / "runs" / "quickstart"

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        (run / "checkpoints" / "step-0000001").mkdir(parents=True)
        save_recipe(tiny("v2", "name=quickstart"), run / "recipe.yaml")
        (run / "metrics.jsonl").write_text("{}\n")

    def check_end() -> None:
        assert not run.exists() and hidden(place) == []

    work = lambda: quickstart._clear(run)  # noqa: E731
    assert at_every_change(begin, work, lambda: None, check_end=check_end) >= 6


def test_bench(place: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the benchmark writes; what it measures is left out."""
    data = str(workspace / "data" / "sample")
    monkeypatch.setattr(bench_runner, "limits", lambda *_: {"bytes_per_second": 1e9})
    for stage in ("_memory", "_speed", "_tokens", "_time", "_generation", "_few_shot"):
        monkeypatch.setattr(bench_runner._BenchRun, stage, lambda self: {})
    for name in ("matched_comparisons", "claims"):
        monkeypatch.setattr(bench_runner, name, lambda report: [])
    monkeypatch.setattr(bench_page, "architectures_page", lambda report: "<html></html>\n")
    monkeypatch.setattr(bench, "_print_report", lambda *_: None)
    words = ("bench", "v2", "dense", "--data", data, "--steps", "2", "--out", "kept", *REPORTS, *CPU)
    assert killed(place, Case(words, files_before, 5)) >= 20


def test_bench_kernels(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_runner, "run_kernels", lambda *_: {"rows": []})
    monkeypatch.setattr(bench_page, "kernels_page", lambda report: "<html></html>\n")
    monkeypatch.setattr(bench_kernels, "_print_report", lambda *_: None)
    assert killed(place, Case(("bench", "kernels", *REPORTS), files_before)) >= 2


def test_all_writing_commands_are_here() -> None:
    """A command that gets an option to write, or writes a folder, gets a case above."""
    import typer

    found = set()

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, one in getattr(command, "commands", {}).items():
            walk(one, (*words, name))
        options = {option for parameter in command.params for option in parameter.opts}
        if options & {"--out", "--json-file", "--html", "--png", "out", "--force"}:
            found.add(" ".join(words))

    walk(typer.main.get_command(app), ())
    assert found == {
        "bench compare", "bench kernels", "calibrate", "data join", "data prepare", "data report", "eval",
        "export", "inspect-sparsity", "quickstart", "tokenizer add-language", "tokenizer train", "train",
    }  # fmt: skip
