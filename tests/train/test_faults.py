"""What is not the run's fault: kills, full disks, signals."""

import errno
import importlib.util
import os
import signal
from pathlib import Path

import pytest

from braingpt.checkpoint import listing, tensors
from braingpt.train.loop import train
from braingpt.train.run import checkpoint_writer
from braingpt.train.run.checkpoint_writer import Saver, retry_while_disk_full
from braingpt.train.run.signals import StopRequest, stop_on_signals
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt, history, same_tensors


def test_killed_again_and_again_it_ends_alike(data, tmp_path):
    path = Path(__file__).parents[2] / "benchmarks" / "faults.py"
    spec = importlib.util.spec_from_file_location("faults", path)
    faults = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faults)
    assert faults.kill_again_and_again(
        tiny("v2", "train.save_every=2", "train.steps=12"), data, tmp_path, kills=3
    )["equal"]


@pytest.mark.parametrize("beside", ["false", "true"])
def test_a_full_disk_is_waited_for_and_leaves_no_trace(tmp_path, data, monkeypatch, beside):
    recipe = tiny(
        "dense", "train.steps=8", "train.save_every=2", "train.eval_every=4", f"train.async_save={beside}"
    )
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    full = {"save_file": 3}
    save_file = tensors.save_file

    def no_room(*arguments):
        if full["save_file"]:
            full["save_file"] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here")
        return save_file(*arguments)

    monkeypatch.setattr(checkpoint_writer, "PAUSE", 0.01)
    monkeypatch.setattr(tensors, "save_file", no_room)
    listener = StopAt(-1)
    done = train(recipe, tmp_path / "run", [data], reporter=listener, device="cpu")
    assert listener.notes == ["the disk is full at here; waiting for space, nothing is lost"]
    assert same_tensors(
        Path(whole.checkpoint) / "optimizer.safetensors", Path(done.checkpoint) / "optimizer.safetensors"
    )
    assert history(tmp_path / "whole") == history(tmp_path / "run") and not list(
        (tmp_path / "run/checkpoints").glob(".*")
    )


def test_a_line_of_metrics_is_there_or_not(tmp_path):
    """/dev/full takes no byte: the error comes through, and a real file keeps its whole lines only."""
    from braingpt.train.run.folder import RunFolder

    run = RunFolder(tmp_path)
    run.log({"kind": "train", "step": 1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        RunFolder(tmp_path / "full").log({"kind": "train", "step": 2})
    run.log({"kind": "train", "step": 2})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_waiting_ends_with_a_stop_and_other_errors_come_through():
    asked, notes = StopRequest(), []

    def full():
        if notes:
            asked.asked = True
        raise OSError(errno.ENOSPC, "full")

    saving_pause, checkpoint_writer.PAUSE = checkpoint_writer.PAUSE, 0.0
    try:
        with pytest.raises(OSError, match="full"):
            retry_while_disk_full(full, notes.append, asked)
    finally:
        checkpoint_writer.PAUSE = saving_pause
    assert len(notes) == 1
    with pytest.raises(PermissionError):
        retry_while_disk_full(
            lambda: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")), notes.append, StopRequest()
        )


def test_what_fails_beside_the_training_is_raised_at_the_next_save():
    saver = Saver(in_thread=True)
    saver.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saver.finish()
    saver.finish()


def test_checkpoints_beside_the_training_are_of_their_step(tmp_path, data):
    small = ("train.steps=8", "train.save_every=2", "train.eval_every=4")
    whole = train(tiny("v2", *small), tmp_path / "whole", [data], device="cpu")
    beside = train(
        tiny("v2", *small, "train.async_save=true", "train.keep=9"), tmp_path / "beside", [data], device="cpu"
    )
    assert [path.name for path in listing.list_checkpoints(tmp_path / "beside")] == [
        listing.name_of(step) for step in (2, 4, 6, 8)
    ]
    for path in listing.list_checkpoints(tmp_path / "whole"):
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert same_tensors(path / name, tmp_path / "beside/checkpoints" / path.name / name)
    assert beside.loss == whole.loss


def test_a_closed_terminal_stops_it_well_and_nohup_does_not():
    # the tests themselves may run under nohup
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.asked
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
