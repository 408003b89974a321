"""What the training loop adds to the bare forward pass, backward pass and optimizer step.

    python benchmarks/loop_overhead.py --data data/korean --recipe tiny-v2 --rounds 12

Two trainers of the same recipe take turns: one takes whole steps as in a run (data, clipping, guard,
controllers, metrics on disk), the other the bare work on a batch that lies ready. This thread's processor
time is the clock, so that other programs disturb less. The parts of the loop are timed alone on the first
trainer.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.recipes import load_recipe
from braingpt.train.batches import MicroBatch
from braingpt.train.loop import Trainer
from braingpt.train.micro_batches import snapshot_counters
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter


def clocked(work: Callable[[], object]) -> float:
    """Seconds of this thread's processor time."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def bare(trainer: Trainer, ready: list[MicroBatch]) -> None:
    """Forward, backward and step on the batch that lies ready."""
    learner = trainer.learner
    learner.model.train()
    for piece in ready:
        (learner.model(piece.ids_BL, piece.targets_BL).loss * piece.target_fraction).backward()
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)


def parts(trainer: Trainer, ready: list[MicroBatch], repeats: int = 20) -> dict[str, float]:
    """Milliseconds of what the loop does beside the bare work, each alone."""
    bare(trainer, ready)
    model = trainer.learner.model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    norm = torch.tensor(1.0)
    record = {
        "kind": "train",
        "step": 1,
        "loss": 1.0,
        "lr": 1.0,
        "grad_norm": 1.0,
        "tokens": 1,
        "tokens_per_second": 1.0,
        "seconds": 1.0,
    }
    steps = iter(range(10**6))

    def data() -> None:
        trainer.loader.micro_batches(next(steps), trainer.batching.micro)

    works = {
        "data": data,
        "clipping": lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0),
        "guard": lambda: trainer.guard.judge(norm),
        "buffers put aside": lambda: snapshot_counters(model),
        "after_step": model.after_step,
        "metrics": lambda: trainer.run.log(record),
    }
    return {
        name: 1e3 * statistics.median(clocked(work) for _ in range(repeats)) for name, work in works.items()
    }


def main() -> None:
    """Measure and print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="tiny-v2")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    configure_cpu()
    torch.set_num_threads(1)
    recipe = load_recipe(given.recipe, [f"data.folders=[{given.data}]"])
    with tempfile.TemporaryDirectory() as scratch:
        whole, alone = (
            Trainer(recipe, RunFolder(Path(scratch)), [Path(given.data)], torch.device("cpu"), Reporter())
            for _ in range(2)
        )
        ready = alone.loader.micro_batches(0, alone.batching.micro)
        for _ in range(2):
            whole.take_step()
            bare(alone, ready)
        times = [(clocked(whole.take_step), clocked(lambda: bare(alone, ready))) for _ in range(given.rounds)]
        found = {
            "recipe": given.recipe,
            "loop_seconds": statistics.median(t for t, _ in times),
            "bare_seconds": statistics.median(t for _, t in times),
            "added": statistics.median(a / b for a, b in times) - 1,
            "parts_ms": parts(alone, ready),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
