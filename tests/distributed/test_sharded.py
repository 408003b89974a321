"""Weights spread over processes (FSDP2 on gloo), and checkpoints of parts."""

import errno
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves

import braingpt
from braingpt.checkpoint import checkpoint, listing
from braingpt.checkpoint import sharded as shards
from braingpt.distributed.sharded_tensors import local_rows
from braingpt.distributed.world import join_world
from braingpt.errors import Failure, UserError
from braingpt.model.lm import build
from braingpt.optim.optimizer import build_optimizer
from braingpt.optim.weight_average import Average
from braingpt.recipes import load_recipe
from braingpt.train.loop import train
from braingpt.train.plan.plan import build_plan
from braingpt.train.plan.step_cost import Alive
from braingpt.train.recompute import recompute_blocks
from braingpt.train.run.folder import read_metrics
from tests.distributed.processes import RECIPES, sharded
from tests.tiny_runs import tiny
from tests.train.test_step_cost import grads_of


def launch(processes: int, *words: object) -> None:
    command = [sys.executable, "-m", "tests.distributed.processes", str(processes), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data) -> Path:
    """`v2` trained by four processes, then by two from its checkpoint; everything else by two."""
    out = tmp_path_factory.mktemp("sharded")
    launch(4, "train", data, out)
    launch(2, "resume", data, out)
    return out


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run) if "loss" in record]


@pytest.mark.parametrize("name", RECIPES)
def test_several_processes_learn_as_one_does(runs, tmp_path, data, name):
    train(RECIPES[name], tmp_path / "one", [data], device="cpu")
    # where 2:4 weights nearly tie, rounding chooses between them
    near = 1e-4 if name == "v1" else 2e-6
    assert len(losses(runs / name)) == 4 and losses(runs / name) == pytest.approx(
        losses(tmp_path / "one"), rel=near
    )


def test_each_process_writes_its_part_and_they_are_the_whole(runs, tmp_path):
    """Every part is there once: one process puts the model together, bit by bit as the files hold it."""
    folder = listing.newest(runs / "v2")
    files = sorted((folder / "model").iterdir())
    assert len(files) == 4 and all(path.stat().st_mode & 0o044 for path in files)
    model, _, recipe, state = checkpoint.load_model(folder)
    assert recipe == sharded("v2").model_copy(update={"data": recipe.data}) and set(state["files"]) > {
        f"model/{path.name}" for path in files
    }
    own = model.state_dict()
    parts = [load_file(path) for path in files]
    assert {name for part in parts for name in part} == set(own)
    for name, value in own.items():
        rows = [part[name] for part in parts if name in part]
        assert torch.equal(torch.cat(rows) if value.ndim and len(rows) > 1 else rows[0], value), name


def test_another_number_of_processes_goes_on(runs, tmp_path, data):
    """From four to two, and to one: the same steps, and the same files to the bit where no step was taken."""
    whole = RECIPES["v2"].model_copy(update={"train": RECIPES["v2"].train.model_copy(update={"steps": 5})})
    train(whole, tmp_path / "one", [data], resume=str(runs / "v2"), device="cpu")
    assert losses(runs / "two")[:4] == losses(runs / "v2") == losses(tmp_path / "one")[:4]
    assert losses(runs / "two")[4:] == pytest.approx(losses(tmp_path / "one")[4:], rel=2e-6)
    assert len(list((listing.newest(runs / "two") / "optimizer").iterdir())) == 2


def test_processes_that_share_weights_grow_together(runs):
    """From the start, and going on before the growth; `test_several_processes_learn_as_one_does` compares the
    losses with one process's.
    """
    assert [record["layers"] for record in read_metrics(runs / "v1") if record["kind"] == "train"] == [
        1,
        1,
        2,
    ]
    assert [record["layers"] for record in read_metrics(runs / "grown") if record["kind"] == "train"] == [
        1,
        1,
        2,
    ]
    assert losses(runs / "grown") == pytest.approx(losses(runs / "dense"), rel=2e-6)
    assert load_recipe(runs / "dense/checkpoints/step-0000002/recipe.yaml").model.layers == 1


def test_processes_that_share_weights_drop_the_same_layers(runs):
    """With others, one would wait for ever."""
    assert len(losses(runs / "dropping")) == 3


def test_what_is_read_by_one_process_is_written_back_the_same(runs, data):
    folder, config = listing.newest(runs / "dense"), RECIPES["dense"]
    model = build(config)
    optimizer, average = build_optimizer(model, config.train), Average(model, 0.9)
    checkpoint.load_weights(model, folder)
    checkpoint.load_training(model, optimizer, folder, average)
    back = checkpoint.contents(model, optimizer, average)
    for part, tensors in (("model", back.model), ("optimizer", back.training)):
        found = {
            name: torch.empty(shape, dtype=dtype)
            for name, (shape, dtype) in shards.shapes(folder / part).items()
        }
        shards.load(found, folder / part)
        assert found.keys() == tensors.keys() and all(
            torch.equal(found[name], tensors[name]) for name in found
        )


def test_every_command_reads_parts(runs):
    model, tokenizer = braingpt.load(runs / "v1")
    assert len(model.generate(tokenizer.encode("안녕"), max_new_tokens=3)) == 3


def test_damaged_parts_are_found(runs, tmp_path):
    folder = tmp_path / "checkpoints" / "step-0000003"
    shutil.copytree(listing.newest(runs / "dense"), folder)
    part = folder / "model" / "shard-00002-model-00001-of-00001.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(Failure, match=r"shard-00002.* is damaged"):
        checkpoint.load_model(folder)
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Failure, match="cannot read"):
        shards.shapes(folder / "model")
    part.unlink()
    with pytest.raises(Failure, match=r"shard-00002.* is missing"):
        checkpoint.load_model(folder)


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    """As the error that a run waits for room at, and not as the library's."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    def full(self, plan, planner):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", full)
    with pytest.raises(OSError, match="No space left") as caught:
        shards.save({"a": torch.ones(2)}, tmp_path / "model")
    assert caught.value.errno == errno.ENOSPC


def test_processes_take_smaller_pieces_together_where_one_is_short_of_memory(runs):
    assert losses(runs / "short") == pytest.approx(losses(runs / "dense"), rel=2e-6)
    assert checkpoint.read_state(listing.newest(runs / "short"))["micro_batch"] == 1


def test_compiled_micro_batches_accumulate_on_their_process(runs):
    """Each step has two micro-batches on each process, and only the second exchanges gradients; the first
    step is rehearsed without an exchange.
    """
    for name in ("plain", "compiled"):
        for rank in (0, 1):
            exchanges = json.loads((runs / f"{name}-{rank}.json").read_text())
            assert exchanges == [False, False, *[False, True] * 2], (name, rank)
    assert len(losses(runs / "plain")) == 3
    assert losses(runs / "compiled") == pytest.approx(losses(runs / "plain"), rel=1e-4)


def test_what_one_process_meets_all_are_told_and_one_says(runs):
    told = [json.loads((runs / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert [line[:2] for line in told[0]] == [line[:2] for line in told[1]]
    assert all(not zero[2] and one[2] for zero, one in zip(*told, strict=True))
    expected = (
        "taken exists; continue it with --resume auto",
        "other holds files that are not a run",
        "a vocabulary of",
        "must be a multiple of the number of",
        "No space",
    )
    assert all(words in line[1] for words, line in zip(expected, told[0], strict=True))


def test_one_process_alone_may_shard_too_and_goes_on_whole(tmp_path, data):
    """As `train.offload` does on a single GPU; a run may change between the ways."""
    small = ("train.steps=3", "train.save_every=2", "train.eval_every=3")
    train(tiny("v1", *small), tmp_path / "whole", [data], device="cpu")
    train(
        tiny("v1", *small, "train.parallel=fsdp", "train.offload=true"),
        tmp_path / "run",
        [data],
        device="cpu",
    )
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    on = tiny("v1", *small[1:], "train.steps=5")
    for run in ("whole", "run"):
        train(on, tmp_path / run, [data], resume="auto", device="cpu")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert torch.distributed.is_initialized() is False


def test_a_process_holds_its_share_as_planned(runs):
    """The files of the first of four are what it holds of weights and moments."""
    folder, plan = listing.newest(runs / "v2"), build_plan(RECIPES["v2"], None)
    share = build_plan(sharded("v2"), None, processes=4)
    files = sum(
        (folder / part / "shard-00001-model-00001-of-00001.safetensors").stat().st_size
        for part in ("model", "optimizer")
    )
    assert files == pytest.approx(share.weights_bytes + share.optimizer_bytes, rel=0.05)
    assert (
        share.optimizer_bytes == pytest.approx(plan.optimizer_bytes / 4, rel=0.01)
        and share.checkpoint_bytes == plan.checkpoint_bytes
    )
    assert share.gathered_bytes and not plan.gathered_bytes and not share.host_bytes


class Held(Alive):
    """Bytes alive where storages grow and shrink, as FSDP's do."""

    def __init__(self, known):
        super().__init__(known)
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, out)):
            storage = (
                local_rows(tensor).untyped_storage()
                if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
                else None
            )
            if storage is not None and storage._cdata not in self.followed:
                self.storages[storage._cdata] = weakref.ref(storage)
        alive = {key: found for key, ref in self.storages.items() if (found := ref()) is not None}
        self.storages = {key: self.storages[key] for key in alive}
        self.peak = max(self.peak, sum(storage.nbytes() for storage in alive.values()))
        return out


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_what_is_whole_for_a_while_is_no_more_than_planned(architecture):
    wide = (
        "model.hidden=64",
        "model.layers=4",
        "train.context=64",
        "train.batch=1",
        "train.recompute=true",
        "train.parallel=fsdp",
    )
    recipe = tiny(architecture, *wide)
    ids = torch.randint(0, recipe.model.vocab, (1, 64))
    with join_world(torch.device("cpu"), recipe.train.parallel, recipe.train.offload) as (world, device):
        model = build(recipe).train()
        recompute_blocks(model)
        world.wrap(model, device)
        model(ids, ids).loss.backward()
        resting = [local_rows(tensor) for p in model.parameters() for tensor in (p, p.grad)]
        with Held([*resting, *model.buffers(), ids]) as alive:
            model(ids, ids).loss.backward()
    sizes = [sum(4 * p.numel() for p in block.parameters()) for block in build(recipe).blocks]
    activations, _ = grads_of(recipe, recompute=True)
    spare = activations + build_plan(recipe, None).gathered_bytes - alive.peak
    # Blocks and the head are not at work at once, and the head's gradient is among the activations as well.
    assert 0 <= spare <= 4 * max(sizes) + 4 * sum(p.numel() for p in build(recipe).parameters()) - sum(sizes)


def test_settings_that_do_not_go_together():
    with pytest.raises(UserError, match=r"train\.offload needs train\.parallel=fsdp"):
        tiny("dense", "train.offload=true")
    assert "train.async_save has no effect" in "".join(
        tiny("dense", "train.async_save=true", "train.parallel=fsdp").remarks()
    )
