"""The plan's memory and time beside what training really took.

    python benchmarks/plan.py --data data/korean nano-v2 tiny-dense tiny-v2:train.micro_batch=1

Each recipe (with overrides behind a colon) is planned; then its whole model takes two real steps while the
bytes of all tensors alive are followed, and three as `braingpt train` takes them, in a process of its own,
whose most resident memory is read. `--time` times real steps (`train.step_time`). Ratios are plan over
measured.

    python benchmarks/plan.py --data data/korean --cap 24 large-v2-3090:train.batch=64

On a GPU whose allocator stops at so many GB: the plan, with the micro-batch it finds, beside the allocator's
peak in two real steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.optim.optimizer import pack_state
from braingpt.recipes import Recipe, load_recipe, save_recipe
from braingpt.train.loop import Trainer
from braingpt.train.plan.plan import plan_run
from braingpt.train.plan.step_cost import Alive
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter
from braingpt.train.step_time import step_seconds
from braingpt.utils.formatting import byte_size


def tensors_alive(recipe: Recipe, data: Path) -> int:
    """The most bytes of tensors at once in the second of two steps, weights and moments included."""
    trainer = Trainer(recipe, RunFolder(Path()), [data], torch.device("cpu"), Reporter())
    trainer.update()
    trainer.step += 1
    trainer.loader.micro_batches(trainer.step, trainer.batching.micro)
    held = [
        *trainer.learner.model.parameters(),
        *trainer.learner.model.buffers(),
        *pack_state(trainer.learner.model, trainer.learner.optimizer).values(),
    ]
    with Alive(held) as alive:
        trainer.update()
    return alive.peak + sum(tensor.numel() * tensor.element_size() for tensor in held)


def resident(recipe: Recipe) -> int:
    """The most resident bytes of `braingpt train`, three steps of it."""
    with tempfile.TemporaryDirectory() as scratch:
        save_recipe(recipe, Path(scratch) / "recipe.yaml")
        command = [
            sys.executable,
            "-m",
            "braingpt",
            "train",
            "--recipe",
            f"{scratch}/recipe.yaml",
            "--out",
            f"{scratch}/run",
        ]
        few = ["--device", "cpu", "--json", "--set", "train.steps=3", "--set", "train.eval_windows=1"]
        done = subprocess.run(
            [*command, *few],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return json.loads(done.stdout)["peak_memory_bytes"]


def under_a_cap(recipe: Recipe, data: Path, gigabytes: float) -> dict[str, Any]:
    """Two steps on a GPU that has no more than that: what was planned, and the most that was allocated."""
    device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_per_process_memory_fraction(
        1e9 * gigabytes / torch.cuda.get_device_properties(device).total_memory
    )
    plan, _ = plan_run(recipe, device, None, thorough=True)
    fixed = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"micro_batch": plan.micro_batch})}
    )
    torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(fixed, RunFolder(Path()), [data], device, Reporter())
    for _ in range(2):
        trainer.update()
        trainer.step += 1
    peak = torch.cuda.max_memory_allocated(device)
    return {
        "micro_batch": trainer.batching.micro,
        "plan": byte_size(plan.peak_bytes),
        "allocated": byte_size(peak),
        "ratio": round(plan.peak_bytes / peak, 3),
    }


def main() -> None:
    """Measure and print, a line a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--time", action="store_true", help="time real steps as well")
    parser.add_argument("--cap", type=float, metavar="GB", help="on a GPU whose allocator stops there")
    parser.add_argument("recipes", nargs="+", metavar="RECIPE[:KEY=VALUE,...]")
    given = parser.parse_args()
    configure_cpu()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    for named in given.recipes:
        name, _, overrides = named.partition(":")
        recipe = load_recipe(name, [f"data.folders=[{given.data}]", *filter(None, overrides.split(","))])
        if given.cap:
            print(
                json.dumps({"recipe": named, **under_a_cap(recipe, Path(given.data), given.cap)}), flush=True
            )
            continue
        plan, _ = plan_run(recipe, device, None, thorough=True)
        fixed = recipe.model_copy(
            update={"train": recipe.train.model_copy(update={"micro_batch": plan.micro_batch})}
        )
        alive, taken = tensors_alive(fixed, Path(given.data)), resident(fixed)
        figures = {
            "recipe": named,
            "micro_batch": plan.micro_batch,
            "activations": byte_size(plan.activations_bytes),
            "plan": byte_size(plan.peak_bytes),
            "tensors": byte_size(alive),
            "ratio": round(plan.peak_bytes / alive, 3),
            "plan_resident": byte_size(plan.resident_bytes),
            "resident": byte_size(taken),
            "resident_ratio": round(plan.resident_bytes / taken, 3),
        }
        if given.time:
            seconds = step_seconds(fixed, [Path(given.data)], "cpu")
            figures |= {"plan_step_s": round(plan.step_seconds, 3), "step_s": round(seconds, 3)}
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
