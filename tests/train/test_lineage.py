"""Where a run comes from: its parent, its data, and the commands that repeat it; and which validation losses
may be compared.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from braingpt.checkpoint import checkpoint, listing
from braingpt.cli.main import app
from braingpt.errors import UserError
from braingpt.train.loop import train
from braingpt.train.run.folder import read_best, read_metrics, run_recipe
from braingpt.train.run.lineage import commands, read_lineage
from braingpt.train.run.report import summary, write_report
from tests.tiny_runs import prepared, tiny
from tests.train.test_loop import StopAt, same_tensors

SHORT = ("train.steps=4", "train.save_every=2", "train.eval_every=2", "train.eval_windows=2")


def go(run: Path, *overrides: str, data=None, resume: str | None = "auto") -> list[str]:
    """Train with notes."""
    listener = StopAt(-1)
    recipe = tiny("dense", *SHORT, *overrides)
    train(recipe, run, data and [data], resume=resume, reporter=listener, device="cpu")
    return listener.notes


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return prepared(tmp_path_factory.mktemp("other") / "sample", count=50)


@pytest.fixture(scope="module")
def done(tmp_path_factory, data) -> Path:
    run = tmp_path_factory.mktemp("lineage") / "run"
    go(run, data=data, resume=None)
    return run


@pytest.fixture
def run(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def repeat(run: Path, new: Path) -> None:
    """Run the commands that the report names."""
    text = write_report(run).read_text(encoding="utf-8")
    block = text.split("## Reproduce\n\n```\n")[1].split("\n```")[0]
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        assert words[:2] == ["braingpt", "train"] and words[-1] == "NEW", line
        app([*words[1:-1], str(new), "--device", "cpu"], standalone_mode=False)


def test_a_plain_run_has_no_parent_and_one_command(run, data, tmp_path):
    (start,) = read_lineage(run)
    assert start.step == 0 and start.data == [str(data)] and start.parent is None
    go(run)
    assert len(read_lineage(run)) == 1, "a start that changes nothing adds nothing"
    repeat(run, tmp_path / "new")
    assert same_tensors(*(listing.newest(one) / "model.safetensors" for one in (run, tmp_path / "new")))


def test_a_branch_names_its_parent_and_the_true_command(run, data, other, tmp_path, capsys):
    parent = run / "checkpoints/step-0000002"
    before = (run / "recipe.yaml").read_bytes()
    notes = go(tmp_path / "branch", "train.lr=1e-4", "train.steps=6", data=other, resume=str(parent))
    assert any(f"the data differ from those the run began with ({data}); continuing with {other}" == note
               for note in notes)  # fmt: skip
    assert any("the learning rate after step 2 is" in note for note in notes)
    (start,) = read_lineage(tmp_path / "branch")
    assert start.parent is not None and start.parent.checkpoint == str(parent) and start.parent.step == 2
    assert start.parent.sha256 == checkpoint.weights_hash(checkpoint.read_state(parent))
    app(["runs", "show", str(tmp_path / "branch")], standalone_mode=False)
    shown = capsys.readouterr().out
    assert f"parent: step 2 of {parent} (weights {start.parent.sha256[:12]}), continued with {other}" in shown
    app(["runs", "show", str(tmp_path / "branch"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["lineage"][0]["parent"]["step"] == 2
    repeat(tmp_path / "branch", tmp_path / "new")
    assert same_tensors(
        *(listing.newest(tmp_path / name) / "model.safetensors" for name in ("branch", "new"))
    )
    assert f"- parent: step 2 of {parent}" in (tmp_path / "branch/report.md").read_text()
    assert (run / "recipe.yaml").read_bytes() == before
    go(tmp_path / "branch", "train.lr=1e-4", "train.steps=8")
    assert [start.step for start in read_lineage(tmp_path / "branch")] == [2, 6]


def test_a_run_with_other_data_later_is_repeated_by_two_commands(run, other, tmp_path):
    notes = go(run, "train.steps=6", data=other)
    assert any("the data differ" in note for note in notes)
    first, second = read_lineage(run)
    assert (first.step, second.step) == (0, 4) and second.data == [str(other)] and second.parent is None
    assert f"- from step 4 on: data {other} (before: " in write_report(run).read_text()
    repeat(run, tmp_path / "new")
    assert same_tensors(*(listing.newest(one) / "model.safetensors" for one in (run, tmp_path / "new")))


def test_a_start_in_the_midst_says_where_to_stop(run, other):
    shutil.rmtree(run / "checkpoints/step-0000004")
    go(run, data=other)
    lines = commands(run, run_recipe(run), read_lineage(run))
    assert len(lines) == 3 and lines[1] == "# stop it after step 2 with Ctrl-C, which saves a checkpoint"


def test_a_start_that_left_nothing_is_no_part_of_the_lineage(run, data, other):
    shutil.rmtree(run / "checkpoints/step-0000004")
    go(run, data=other)
    shutil.rmtree(run / "checkpoints/step-0000004")
    go(run, data=data)
    assert [start.step for start in read_lineage(run)] == [0]


def test_an_older_run_without_lineage_gets_one(run, data, other):
    (run / "lineage.json").unlink()
    go(run, "train.steps=6", data=other)
    first, second = read_lineage(run)
    assert (first.step, first.data) == (0, [str(data)]) and second.step == 4


def test_fewer_steps_than_taken_are_refused_and_nothing_changes(run):
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    for steps in (1, 3):
        with pytest.raises(UserError, match=r"is at step 4 already, and train\.steps is .; .* N above 4"):
            go(run, f"train.steps={steps}")
    assert {path: path.read_bytes() for path in run.glob("*.*")} == before
    go(run, "train.steps=5")
    assert run_recipe(run).train.steps == 5


def test_what_a_branch_may_change_and_what_not(run, tmp_path):
    with pytest.raises(UserError, match=r"train\.lr = .*or branch into a new run: --resume .* --out NEW"):
        go(run, "train.lr=1e-4")
    for index, setting in enumerate(("train.optimizer=adamw", "train.batch=8", "model.mlp=64")):
        key = setting.partition("=")[0].replace(".", r"\.")
        with pytest.raises(UserError, match=rf"with {key} = .*train a new run with --recipe and a new --out"):
            go(tmp_path / str(index), setting, resume=str(run))
        assert not (tmp_path / str(index)).exists()
    for index, setting in enumerate(
        ("train.schedule=linear", "data.mixture={ko: 2, en: 1}", "train.clip=0.5")
    ):
        go(tmp_path / f"b{index}", setting, "train.steps=5", resume=str(run))


@pytest.mark.parametrize("changed", ["data", "windows"])
def test_best_is_not_compared_across_validations(run, data, other, changed):
    records = [record for record in read_metrics(run) if record["kind"] == "validation"]
    assert read_best(run) and len({record["validated_on"] for record in records}) == 1
    # A loss that nothing on the other text reaches.
    path = run / "metrics.jsonl"
    path.write_text("".join(json.dumps(record | {"loss": 0.001} if record["kind"] == "validation" else record)
                            + "\n" for record in read_metrics(run)))  # fmt: skip
    settings = {"data": (), "windows": ("train.eval_windows=1",)}[changed]
    notes = go(run, "train.steps=8", *settings, data=other if changed == "data" else data)
    assert any("the best checkpoint is chosen among the new ones" in note for note in notes)
    best = read_best(run)
    assert best and best["loss"] > 1 and best["step"] >= 4
    notes = go(run, "train.steps=10", *settings)
    assert not any("is chosen among" in note for note in notes), "said once"
    again = read_best(run)
    assert again and again["loss"] > 1


def test_best_of_the_same_validation_stays_the_best(run, data):
    moved = shutil.copytree(data, run.parent / "moved")
    before = read_best(run)
    assert before
    notes = go(run, "train.steps=6", data=moved)
    assert not any("chosen among" in note or "data differ" in note for note in notes)
    best = read_best(run)
    assert best and best["loss"] <= before["loss"]


def test_an_older_run_keeps_its_best_on_the_same_data_and_not_on_others(run, data, other):
    for folder in listing.list_checkpoints(run):
        state = json.loads((folder / "state.json").read_text()) | {"format": 1}
        old = {key: value for key, value in state.items() if key not in ("sha256", "validation")}
        (folder / "state.json").write_text(json.dumps(old))
    lines = [
        {key: value for key, value in record.items() if key != "validated_on"} for record in read_metrics(run)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = read_best(run)
    for resumed in (4, 4):
        assert not any("chosen among" in note for note in go(run, f"train.steps={resumed}"))
    assert read_best(run) == before
    assert any("chosen among" in note for note in go(run, "train.steps=6", data=other))
    best = read_best(run)
    go(run, "train.steps=8")
    after = read_best(run)
    assert best and after and best["step"] >= 4 and after["loss"] <= best["loss"]


def test_runs_of_other_validations_are_not_compared_without_a_word(run, other, tmp_path, capsys):
    go(tmp_path / "two", data=other, resume=None)
    app(["runs", "compare", str(run), str(tmp_path / "two")], standalone_mode=False)
    assert "note: validation losses of these runs are of different text" in capsys.readouterr().err
    app(["runs", "compare", str(run), str(run)], standalone_mode=False)
    assert not capsys.readouterr().err
    assert summary(run)["validation"]["validated_on"]
