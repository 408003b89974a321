"""A damaged line of metrics.jsonl, or another damaged file of a run, costs that line and is said."""

import json
import shutil
from pathlib import Path

import pytest

from braingpt.cli.main import app
from braingpt.errors import UserError
from braingpt.train.loop import train
from braingpt.train.run.folder import BEST, read_best, read_metrics, run_recipe
from braingpt.train.run.lineage import LINEAGE, read_lineage
from braingpt.train.run.metrics import METRICS, read_lines
from braingpt.train.run.report import write_report
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt

GOOD = {"kind": "train", "step": 1, "loss": 1.0, "tokens": 4, "seconds": 1.0, "tokens_per_second": 4.0}
SCORES = {"kind": "validation", "step": 1, "loss": 1.0, "bits_per_byte": 2.0, "by_language": {}}
NO_RECORDS = {
    "a byte that is not UTF-8": b'{"kind": "tra\xffin", "step": 1}',
    "a number": b"3",
    "a list": b"[]",
    "null": b"null",
    "half a record": b'{"kind": "train", "st',
    "another object": b'{"a": 1}',
    "no step": b'{"kind": "growth"}',
    "a step in words": b'{"kind": "growth", "step": "two"}',
    "a negative step": b'{"kind": "growth", "step": -1}',
    "a kind that is no word": b'{"kind": [], "step": 1}',
    "NaN": json.dumps(GOOD | {"loss": float("nan")}).encode(),
    "infinity": json.dumps(GOOD | {"seconds": float("inf")}).encode(),
    "an infinite number": json.dumps(GOOD).replace("4.0", "1e999").encode(),
    "a loss in words": json.dumps(GOOD | {"loss": "low"}).encode(),
    "no speed": json.dumps({key: GOOD[key] for key in GOOD if key != "tokens_per_second"}).encode(),
    "no languages": json.dumps(SCORES | {"by_language": None}).encode(),
    "a language without scores": json.dumps(SCORES | {"by_language": {"ko": {}}}).encode(),
    "deeply nested": b"[" * 100_000,
    "zeros, as after a power cut": b"\0" * 40,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("metrics") / "runs"
    train(tiny("dense", "train.steps=4", "train.save_every=2", "train.eval_every=2"), folder / "run", [data],
          device="cpu")  # fmt: skip
    return folder


@pytest.fixture
def runs(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "runs")


@pytest.mark.parametrize("line", NO_RECORDS.values(), ids=NO_RECORDS)
def test_a_line_that_is_no_record_is_left_out_and_named(runs, line):
    run = runs / "run"
    before = read_metrics(run)
    first, rest = (run / METRICS).read_bytes().split(b"\n", 1)
    (run / METRICS).write_bytes(first + b"\n" + line + b"\n" + rest)
    notes: list[str] = []
    assert read_metrics(run, notes.append) == before
    assert notes == [f"{run / METRICS}: line 2 is no record of a run; left out"]


def test_a_line_that_is_being_written_is_no_damage(runs):
    run = runs / "run"
    with open(run / METRICS, "ab") as file:
        file.write(b'{"kind": "train", "st')
    assert read_lines(run).damaged == {}


def test_every_command_goes_on_beside_a_damaged_line(runs, data, capsys, monkeypatch):
    monkeypatch.chdir(runs.parent)
    run = Path("runs/run")
    with open(run / METRICS, "ab") as file:
        file.write(b"\xff\xfe\n[]\n")
    (run / BEST).write_text('{"step": ')
    (run / LINEAGE).write_text('{"starts": 3}')
    for command in (["list"], ["show", "run"], ["compare", "run", "runs/run"]):
        app(["runs", *command], standalone_mode=False)
        out, err = capsys.readouterr()
        assert "4" in out and f"note: {run}/metrics.jsonl: 2 lines are no records (" in err
        assert f"note: {run}/best.json is damaged" in err and f"note: {run}/lineage.json is damaged" in err
    assert "## Reproduce" in write_report(run).read_text()
    listener = StopAt(-1)
    recipe = tiny("dense", "train.steps=6", "train.save_every=2", "train.eval_every=2")
    train(recipe, run, [data], resume="auto", reporter=listener, device="cpu")
    assert any("kept in runs/run/metrics.damaged" in note for note in listener.notes)
    assert (run / "metrics.damaged").read_bytes() == b"\xff\xfe\n[]\n"
    notes: list[str] = []
    records = read_metrics(run, notes.append)
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6] and not notes
    assert read_best(run, notes.append) and read_lineage(run, notes.append) and not notes


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", '{"step": 1, "loss": NaN, "checkpoint": "x"}',
                                  '{"step": "1", "loss": 1, "checkpoint": "x"}'])  # fmt: skip
def test_a_damaged_best_is_none(tmp_path, text):
    (tmp_path / BEST).write_text(text)
    notes: list[str] = []
    assert read_best(tmp_path, notes.append) is None
    assert notes == [f"{tmp_path / BEST} is damaged; the next validation of the run writes it again"]


def test_a_damaged_recipe_names_its_copy(runs):
    run = runs / "run"
    whole = run_recipe(run)
    (run / "recipe.yaml").write_bytes(b"\xff" + (run / "recipe.yaml").read_bytes())
    with pytest.raises(UserError, match=r"cannot read recipe .*; restore it: cp .*step-0000004/recipe.yaml "):
        run_recipe(run)
    shutil.copy(run / "checkpoints/step-0000004/recipe.yaml", run / "recipe.yaml")
    assert run_recipe(run) == whole
