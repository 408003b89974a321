"""Compiled training on two processes: gradients stay on their process until a step's last micro-batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from braingpt.train.run.folder import read_metrics

PROGRAM = """
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from braingpt.device import compile as compiling
from braingpt.train.loop import train
from tests.tiny_runs import tiny

torch.set_num_threads(1)
folder, data = Path(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo")
# What is tested is the wrapper, and not the code that a compiler makes.
plain = compiling.compile_function
compiling.compile_function = lambda function, _: plain(function, "aot_eager")
compiling.check_compiler = lambda *_: None
whole = DistributedDataParallel.forward

def counted(self, *inputs, **more):
    exchanges.append(self.require_backward_grad_sync)
    return whole(self, *inputs, **more)

DistributedDataParallel.forward = counted
for compiled in ("false", "true"):
    exchanges = []
    settings = ("train.steps=2", "train.micro_batch=1", "train.eval_every=2", f"train.compile={compiled}")
    train(tiny("dense", *settings), folder / compiled, [data], device="cpu")
    # Each step has two micro-batches on each process, and only the second exchanges gradients. The first
    # step is rehearsed without an exchange.
    assert exchanges == [False, False, *[False, True] * 2], (compiled, exchanges)
torch.distributed.destroy_process_group()
"""


def test_compiled_micro_batches_accumulate_on_their_process(tmp_path, data):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(program), str(tmp_path), str(data),
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = (
        [record["loss"] for record in read_metrics(tmp_path / name) if record["kind"] == "train"]
        for name in ("false", "true")
    )
    assert len(plain) == 2 and compiled == pytest.approx(plain, rel=1e-4)
