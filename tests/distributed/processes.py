"""What the processes of `test_sharded.py` run: `python -m tests.distributed.processes 4 train DATA OUT`.

They are forks of one that has imported everything, which takes a fifth of torchrun's time;
`test_world.py` starts some as a user does.
"""

import errno
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from braingpt.device import compile as compiling
from braingpt.errors import Failure, UserError, reported_elsewhere
from braingpt.train import micro_batches
from braingpt.train.loop import train
from braingpt.train.run import folder as run_folder
from tests.tiny_runs import tiny

# As small as they may be with something of every kind; pieces of one window, which four processes have as
# well.
STEPS = ("train.steps=3", "train.save_every=3", "train.eval_every=3", "train.micro_batch=1", "train.warmup=1")
# in the third step
GROWING = ("train.growth=[0.5]",)
RECIPES = {
    "dense": tiny(
        "dense",
        *STEPS,
        *GROWING,
        "train.optimizer=adamw",
        "train.average=0.9",
        "train.recompute=true",
        "train.save_every=1",
    ),
    "v1": tiny("v1", *STEPS, *GROWING, "train.optimizer=muon"),
    "v2": tiny(
        "v2",
        *STEPS,
        "train.optimizer=adamw",
        "model.depth.share=0.7",
        "model.depth.exits=[1]",
        "model.lexical.rows=50",
    ),
}
DROPPING = tiny("v1", "model.layers=3", "model.early_exit.dropout=0.9", "model.early_exit.loss=0.5").model


def sharded(name: str, **changes):
    """The recipe with its weights spread over the processes."""
    recipe = RECIPES[name]
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"parallel": "fsdp", **changes})}
    )


def short_of_memory(data: Path, out: Path) -> None:
    """The last process has room for one window at a time, the others for all; with the whole model each."""
    plenty = micro_batches.gradients

    def short(learner, batching, step):
        if batching.micro > 1 and dist.get_rank() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plenty(learner, batching, step)

    micro_batches.gradients = short
    recipe = RECIPES["dense"]
    train(
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"micro_batch": None})}),
        out,
        [data],
        device="cpu",
    )


def wrong(data: Path, out: Path) -> None:
    """Runs that cannot begin: what each process was told of them, and whether it is the one to say it."""
    # the first process alone has one
    run_folder.RunFolder.prepare = full
    taken, other = out / "taken", out / "other"
    if dist.get_rank() == 0:
        for folder in (taken, other):
            folder.mkdir(exist_ok=True)
        (taken / "metrics.jsonl").touch()
        (other / "letter.txt").touch()
    recipe = RECIPES["dense"]
    foreign = recipe.model_copy(update={"model": recipe.model.model_copy(update={"vocab": 100})})
    odd = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": 3})})
    dist.barrier()
    told = []
    for settings, folder in (
        (recipe, taken),
        (recipe, other),
        (foreign, out / "a"),
        (odd, out / "b"),
        (recipe, out / "full"),
    ):
        try:
            train(settings, folder, [data], device="cpu")
        except (UserError, Failure, OSError) as error:
            told.append([type(error).__name__, str(error), reported_elsewhere(error)])
    (out / f"told-{dist.get_rank()}.json").write_text(json.dumps(told))


def compiled(data: Path, out: Path) -> None:
    """A run with --compile and one without: whether each of their forward passes exchanges gradients."""
    # What is tested is the wrapper, and not the code that a compiler makes.
    plain, forward = compiling.compile_function, DistributedDataParallel.forward
    compiling.compile_function = lambda function, _: plain(function, "aot_eager")
    compiling.check_compiler = lambda *_: None

    def counted(self, *inputs, **more):
        exchanges.append(self.require_backward_grad_sync)
        return forward(self, *inputs, **more)

    DistributedDataParallel.forward = counted
    for name in ("plain", "compiled"):
        exchanges: list[bool] = []
        settings = (f"train.compile={name == 'compiled'}", "train.steps=2", "train.eval_every=2")
        train(tiny("dense", *settings, "train.micro_batch=1"), out / name, [data], device="cpu")
        (out / f"{name}-{dist.get_rank()}.json").write_text(json.dumps(exchanges))
    DistributedDataParallel.forward = forward


def full(*_) -> None:
    """A disk that takes nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def work(rank: int, world: int, mode: str, data: Path, out: Path) -> None:
    """All runs of one launch."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", init_method=f"file://{out}/.meeting-{mode}", rank=rank, world_size=world)
    if mode == "train":
        train(sharded("v2"), out / "v2", [data], device="cpu")
    else:
        for name in ("dense", "v1"):
            train(sharded(name), out / name, [data], device="cpu")
        train(sharded("v2", steps=5), out / "two", [data], resume=str(out / "v2"), device="cpu")
        train(
            sharded("dense"),
            out / "grown",
            [data],
            resume=str(out / "dense/checkpoints/step-0000002"),
            device="cpu",
        )
        train(
            sharded("v1", steps=2, growth=None).model_copy(update={"model": DROPPING}),
            out / "dropping",
            [data],
            device="cpu",
        )
        compiled(data, out)
        short_of_memory(data, out / "short")
        wrong(data, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    torch.multiprocessing.start_processes(work, arguments, nprocs=arguments[0], start_method="fork")
