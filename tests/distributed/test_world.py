"""Several processes on a CPU (gloo), started as a user starts them."""

import os
import subprocess
import sys

import pytest
import torch

from braingpt.checkpoint import checkpoint, listing
from braingpt.distributed.world import World
from braingpt.errors import UserError
from braingpt.train.batches import BatchLoader, open_data
from braingpt.train.loop import Trainer, train
from braingpt.train.run.folder import RunFolder, read_metrics
from braingpt.train.run.progress import Reporter
from tests.tiny_runs import TINY, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("reset", ["false", "true"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_see_the_rows_of_one(data, world, reset):
    recipe = tiny("dense", f"data.reset_at_documents={reset}")
    tokenizer, shards = open_data([data], recipe)
    (whole,) = BatchLoader(recipe, shards, tokenizer, CPU).micro_batches(5, 4)
    parts = [
        micro_batch
        for rank in range(world)
        for micro_batch in BatchLoader(recipe, shards, tokenizer, CPU, rank, world).micro_batches(5, 1)
    ]
    assert torch.equal(torch.cat([micro_batch.ids_BL for micro_batch in parts]), whole.ids_BL)
    assert torch.equal(torch.cat([micro_batch.targets_BL for micro_batch in parts]), whole.targets_BL)
    assert (
        sum(micro_batch.target_fraction for micro_batch in parts)
        == pytest.approx(whole.target_fraction)
        == pytest.approx(1)
    )


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path, data):
    with pytest.raises(
        UserError, match=r"train\.batch \(4\) must be a multiple of the number of processes \(3\)"
    ):
        Trainer(tiny("dense"), RunFolder(tmp_path), [data], CPU, Reporter(), World(1, 3))


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_out_of_memory_amid_a_run_torchrun_begins_again_with_smaller_pieces(tmp_path, data, parallel):
    short = (
        "train.steps=5",
        "train.eval_every=5",
        "train.save_every=2",
        "train.warmup=1",
        f"train.parallel={parallel}",
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
    ]
    command = [
        *launch,
        "-m",
        "tests.train.short_of_memory",
        "1",
        "3",
        "train",
        "--recipe",
        "nano-dense",
        "--data",
        str(data),
    ]
    settings = [part for setting in (*TINY, *short) for part in ("--set", setting)]
    where = ["--out", str(tmp_path / "run"), "--resume", "auto", "--device", "cpu"]
    done = subprocess.run(
        [*command, *where, *settings],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [
        line.removeprefix("braingpt: ") for line in done.stderr.splitlines() if line.startswith("braingpt: ")
    ]
    assert sorted(line.partition(";")[0] for line in said) == [
        "another process of this run has ended, so the run ends",
        "out of memory in step 4 with 2 windows at a time",
    ]
    assert (
        "continuing after step 2" in done.stdout
        and "at most 1 window at a time, as more did not fit" in done.stdout
    )
    train(tiny("dense", *short[:4]), tmp_path / "one", [data], device="cpu")
    one, two = (
        [r["loss"] for r in read_metrics(tmp_path / name) if r["kind"] == "train"] for name in ("one", "run")
    )
    assert two == pytest.approx(one, rel=2e-6)
    assert checkpoint.read_state(listing.newest(tmp_path / "run"))["micro_batch"] == 1


def test_the_same_command_on_two_processes_gives_the_same_losses_and_goes_on_with_one(tmp_path, data):
    # the model grows after the third step
    short = ("train.steps=4", "train.eval_every=4", "train.save_every=2", "train.growth=[0.7]")
    overrides = (*TINY, *short, "train.micro_batch=1")
    whole = train(tiny("v2", *short), tmp_path / "one", [data], device="cpu")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "braingpt",
        "train",
    ]
    command = [
        *launch,
        "--recipe",
        "nano-v2",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "two"),
        "--device",
        "cpu",
    ]
    settings = [part for setting in overrides for part in ("--set", setting)]
    done = subprocess.run(
        [*command, *settings],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation loss") == 1 + done.stdout.count("best validation loss"), (
        "one process speaks"
    )
    one, two = (
        [r["loss"] for r in read_metrics(tmp_path / name) if r["kind"] == "train"] for name in ("one", "two")
    )
    assert len(two) == 4 and two == pytest.approx(one, rel=1e-4)
    assert [r["layers"] for r in read_metrics(tmp_path / "two") if r["kind"] == "train"] == [1, 1, 1, 2]
    on = train(tiny("v2", *short, "train.steps=6"), tmp_path / "two", [data], resume="auto", device="cpu")
    assert (
        on.step == 6
        and on.best["step"] in (4, 6)
        and whole.best["loss"]
        == pytest.approx(
            next(r["loss"] for r in read_metrics(tmp_path / "two") if r["kind"] == "validation"), rel=1e-4
        )
    )
