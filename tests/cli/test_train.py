import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braingpt.checkpoint import checkpoint, listing
from braingpt.cli.console import guarded
from braingpt.cli.main import app
from tests.frozen.keys import assert_keys
from tests.tiny_runs import TINY


def braingpt(*arguments) -> int:
    return guarded(lambda: app([str(argument) for argument in arguments], standalone_mode=False))


def settings(*more: str) -> list[str]:
    return [part for setting in (*TINY, *more) for part in ("--set", setting)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_then_refuse_then_go_on(here, data, capsys):
    command = ["train", "--recipe", "nano-v2", "--data", data, "--device", "cpu", *settings("train.steps=4")]
    assert braingpt(*command, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["run"] == "runs/nano-v2" and result["step"] == 4 and result["interrupted"] is False
    assert "parameters" in captured.err and "validation loss" in captured.err
    assert braingpt(*command) == 2
    assert (
        capsys.readouterr().err
        == "braingpt: runs/nano-v2 exists; continue it with --resume auto, or choose another --out\n"
    )
    assert (
        braingpt(
            "train", "--resume", "auto", "--out", "runs/nano-v2", "--set", "train.steps=6", "--device", "cpu"
        )
        == 0
    )
    assert (
        "continuing after step 4" in (out := capsys.readouterr().out)
        and "checkpoint runs/nano-v2/checkpoints/step-0000006" in out
    )
    assert braingpt("train", "--resume", "runs/nano-v2", "--set", "train.steps=6", "--device", "cpu") == 0
    assert "no steps left" in capsys.readouterr().out


def test_the_plan_needs_no_data_and_writes_nothing(here, data, capsys, monkeypatch):
    # The trial of a few layers, which tests/train does at its real size.
    monkeypatch.setattr("braingpt.train.plan.step_cost.LEAST_TOKENS", {"cpu": 64, "cuda": 64})
    assert (
        braingpt("train", "--recipe", "small-v2", "--plan", "--device", "cpu", "--set", "train.context=16")
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "60.0M" in out
        and "memory at the peak" in out
        and "make them with: braingpt data prepare korean && braingpt data prepare simple" in out
        and not list(here.iterdir())
    )
    assert (
        braingpt("train", "--recipe", "nano-v1", "--data", data, "--plan", "--json", "--device", "cpu") == 0
    )
    plan = json.loads(capsys.readouterr().out)
    assert plan["data_missing"] is None and plan["epochs"] > 0 and plan["tokens"] == 1200 * 8 * 128
    assert (
        plan["peak_bytes"] >= plan["weights_bytes"] + plan["optimizer_bytes"] + plan["activations_bytes"]
        and plan["seconds"] > 0
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nano-v3"], "did you mean"),
        ([], "--recipe NAME is missing; `braingpt recipes` lists the names"),
        (["--resume", "auto"], "needs --out RUN or --recipe NAME"),
        (["--resume", "auto", "--out", "nowhere"], "there is no run nowhere"),
        (["--resume", "nowhere"], "there is no run nowhere"),
        (["--recipe", "nano-v2"], "data/sample does not exist; make it with: braingpt data prepare sample"),
        (["--recipe", "nano-v2", "--device", "tpu"], "unknown device 'tpu'"),
        (["--recipe", "nano-v2", "--set", "lr=3"], "unknown recipe key 'lr'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(here, capsys, arguments, message):
    assert braingpt("train", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(here.iterdir())


def test_a_file_is_no_run_folder_and_stays(here, data, capsys):
    (here / "note").write_text("x")
    for out in ("note", "note/below"):
        assert (
            braingpt("train", "--recipe", "nano-dense", "--data", data, "--out", out, "--device", "cpu") == 2
        )
        assert capsys.readouterr().err.endswith("note is a file; name another folder\n")
    assert (here / "note").read_text() == "x"


def test_ctrl_c_saves_and_names_the_command_that_goes_on(here, data):
    command = [
        sys.executable,
        "-m",
        "braingpt",
        "train",
        "--recipe",
        "nano-dense",
        "--data",
        str(data),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [*command, *settings("train.steps=100000")],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (metrics := here / "runs/nano-dense/metrics.jsonl").exists() or not metrics.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    folder = listing.newest(here / "runs/nano-dense")
    step = checkpoint.read_state(folder)["step"]
    checkpoint.verify(folder)
    assert process.returncode == 130 and len(metrics.read_text().splitlines()) >= step
    assert f"stopped after step {step} of 100000" in error
    assert (
        error.endswith(" -m braingpt train --resume auto --out runs/nano-dense\n")
        and "Traceback" not in error
    )


def test_recipes_are_listed_and_shown(here, capsys):
    assert braingpt("recipes", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert_keys("recipes", listed)
    rows = {row["name"]: row for row in listed}
    assert (
        rows["nano-v2"]["parameters_total"] > rows["nano-v2"]["parameters_active"] > 0
        and rows["small-v1"]["layers"] == 6
    )
    assert braingpt("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) + 1 and all(len(line) <= 80 and "…" not in line for line in lines)
    assert braingpt("recipes", "show", "nano-v2", "--set", "train.lr=1e-4") == 0
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert braingpt("recipes", "show", "mine.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["lr"] == 1e-4
    assert braingpt("recipes", "show", "nano") == 2


def test_quickstart_replaces_only_its_own_run(here, capsys, data):
    from braingpt.cli import quickstart
    from braingpt.errors import UserError
    from braingpt.recipes import load_recipe
    from braingpt.train.run.folder import locked

    for name, path in (("mine", Path("runs/mine")), (quickstart.NAME, Path("runs/quickstart"))):
        with locked(path) as run:
            run.prepare(load_recipe("nano-v2", [f"name={name}"]), 0)
    with pytest.raises(UserError, match="quickstart did not make"):
        quickstart._clear(Path("runs/mine"))
    quickstart._clear(Path("runs/quickstart"))
    quickstart._clear(Path("runs/new"))
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]
