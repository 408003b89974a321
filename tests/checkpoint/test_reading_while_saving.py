"""A run that saves and deletes a checkpoint at each step, read meanwhile by every door."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import braingpt
from braingpt.checkpoint import checkpoint, listing, load
from braingpt.cli.main import app
from braingpt.errors import Failure, UserError
from braingpt.exchange.export import export_checkpoint
from braingpt.model.lm import build
from braingpt.tokenizer import Tokenizer
from tests.tiny_runs import TINY, tiny

STEPS = 100_000


@pytest.fixture
def saving(tmp_path, data):
    """The folder of a run in another process that saves at each step and keeps one checkpoint."""
    run = tmp_path / "runs/run"
    more = (f"train.steps={STEPS}", "train.save_every=1", "train.keep=1", f"train.eval_every={STEPS}")
    sets = [word for setting in (*TINY, *more) for word in ("--set", setting)]
    command = ["train", "--recipe", "nano-dense", *sets, "--data", str(data), "--out", str(run)]
    writer = subprocess.Popen(
        [sys.executable, "-P", "-m", "braingpt", *command, "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(braingpt.__file__).parents[1])},
        text=True,
    )
    try:
        began = time.monotonic()
        while listing.newest(run) is None:
            assert writer.poll() is None, writer.stderr and writer.stderr.read()
            assert time.monotonic() - began < 120
            time.sleep(0.05)
        yield run
    finally:
        writer.send_signal(signal.SIGTERM)
        writer.wait(timeout=120)


def test_every_door_reads_a_run_that_saves_and_deletes_at_each_step(saving, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps, deleted, deadline = set(), 0, time.monotonic() + 60
    while (len(steps) <= 3 or not deleted) and time.monotonic() < deadline:
        loaded = load.load_run(saving)
        steps.add(loaded.state["step"])
        deleted += not loaded.folder.exists()
    assert len(steps) > 3 and deleted > 0, "the run saved and deleted meanwhile"
    for name in ("generate", "eval", "inspect-sparsity", "export", "memory", "doctor", "runs"):
        more = {
            "generate": [saving, "--max-new-tokens", 1],
            "eval": [saving, "--windows", 1],
            "inspect-sparsity": [saving, "--rounds", 0],
            "export": [saving, tmp_path / "exported"],
            "memory": ["add", tmp_path / "facts", "The cat is called Biscuit.", "--run", saving],
            "doctor": [],
            "runs": ["list"],
        }[name]
        app([name, *map(str, more)], standalone_mode=False)
        out, err = capsys.readouterr()
        assert not any(line.startswith("problem") for line in out.splitlines()), name
        assert "skipped" not in err, name


def saved(run: Path, step: int) -> Path:
    recipe, folder = tiny(), run / "checkpoints" / listing.name_of(step)
    return checkpoint.save(
        folder, model=build(recipe), tokenizer=Tokenizer.default(), recipe=recipe, step=step, tokens=step
    )


def test_what_is_read_is_deleted_later(tmp_path):
    for step in (1, 2, 3):
        saved(tmp_path, step)
    first = tmp_path / "checkpoints/step-0000001"
    with listing.held(first) as there:
        assert there
        listing.prune(tmp_path, 1)
        assert [path.name[-1] for path in listing.list_checkpoints(tmp_path)] == ["1", "3"]
    listing.prune(tmp_path, 1)
    assert [path.name[-1] for path in listing.list_checkpoints(tmp_path)] == ["3"]
    with listing.held(first) as there:
        assert not there


def test_what_vanishes_before_it_is_read_is_replaced_by_the_newest(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    resolve, seen = listing.resolve, []

    def late(run):
        seen.append(resolve(run))
        if len(seen) == 1:
            saved(tmp_path, 2)
            listing.remove(seen[0])
        return seen[-1]

    monkeypatch.setattr(load, "resolve", late)
    assert load.load_run(tmp_path).state["step"] == 2 and len(seen) == 2
    assert export_checkpoint(tmp_path, tmp_path / "out")["source"].endswith("step-0000002")


def test_what_is_taken_away_while_it_is_read_is_replaced_and_damage_is_not_hidden(tmp_path, monkeypatch):
    one = saved(tmp_path, 1)
    whole, tries = load.load_model, []

    def disturbed(folder, device):
        tries.append(folder)
        if len(tries) == 1:
            saved(tmp_path, 2)
            listing.remove(one)
        return whole(folder, device)

    monkeypatch.setattr(load, "load_model", disturbed)
    assert load.load_run(tmp_path).state["step"] == 2 and len(tries) == 2
    (tmp_path / "checkpoints/step-0000002/model.safetensors").write_bytes(b"x")
    with pytest.raises(Failure, match="damaged"):
        load.load_run(tmp_path)
    with pytest.raises(UserError, match="there is no run"):
        load.load_run(one)
