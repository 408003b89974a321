"""Time to equal validation loss with and without growth: the same recipe, data and batches, in turns of a few
steps in one process.

    python benchmarks/growth.py --data data/korean --recipe nano-dense \\
        --set model.layers=12 --set train.steps=900 --set train.batch=4

Four runs for each seed: all layers from the beginning; growing, as many steps; growing, as many more steps as
cost the same arithmetic; and as many steps with half of the layers, to see what depth is worth at all after
so little training. Each has a clock of its own, of this process's processor time and of the wall, that runs
only while it trains.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from braingpt.bench.machine import machine
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.loop import Trainer
from braingpt.train.plan.plan import build_plan
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter

# Steps of a turn.
TURN = 10
# Validations of a run.
POINTS = 12


class Runner:
    """One run and its clocks."""

    def __init__(self, name: str, recipe: Recipe, data: Path) -> None:
        self.name, self.recipe = name, recipe
        self.trainer = Trainer(recipe, RunFolder(Path()), [data], torch.device("cpu"), Reporter())
        self.cpu = self.wall = 0.0
        # Loss over time.
        self.curve: list[dict[str, float]] = []
        self.due = [round(recipe.train.steps * point / POINTS) for point in range(1, POINTS + 1)]

    @property
    def done(self) -> bool:
        return self.trainer.step >= self.recipe.train.steps

    def turn(self) -> None:
        """Some steps, and a validation where one is due, on nobody's clock."""
        until = min(self.recipe.train.steps, self.trainer.step + TURN)
        while self.trainer.step < until:
            cpu, wall = time.process_time(), time.perf_counter()
            self.trainer.update()
            self.trainer.step += 1
            self.cpu, self.wall = self.cpu + time.process_time() - cpu, self.wall + time.perf_counter() - wall
            if self.trainer.step in self.due:
                scores = self.trainer.validator.scores(self.trainer.learner, self.trainer.batching.micro)
                point = {
                    "step": self.trainer.step,
                    "cpu": self.cpu,
                    "wall": self.wall,
                    "loss": scores["loss"],
                    "bits": scores["bits_per_byte"],
                }
                self.curve.append(point)

    def reaches(self, loss: float, clock: str) -> float | None:
        """Seconds until the validation loss is `loss`, between two validations by a straight line; None where
        it never is.
        """
        for before, after in zip([None, *self.curve], self.curve, strict=False):
            if after["loss"] <= loss:
                if before is None:
                    return after[clock]
                part = (before["loss"] - loss) / (before["loss"] - after["loss"])
                return before[clock] + part * (after[clock] - before[clock])
        return None


def arms(name: str, overrides: list[str], growth: str) -> dict[str, Recipe]:
    """The four runs."""
    whole = load_recipe(name, overrides)
    growing = load_recipe(name, [*overrides, f"train.growth={growth}"])
    more = round(
        whole.train.steps * build_plan(whole, None).training_flops / build_plan(growing, None).training_flops
    )
    longer = load_recipe(name, [*overrides, f"train.growth={growth}", f"train.steps={more}"])
    half = load_recipe(name, [*overrides, f"model.layers={whole.model.layers // 2}"])
    return {
        "all layers": whole,
        "growing, equal steps": growing,
        "growing, equal work": longer,
        "half of the layers": half,
    }


def compared(runners: list[Runner]) -> list[dict[str, Any]]:
    """Print and return a row for each run; the others are compared with the first."""
    goal, rows = runners[0].curve[-1]["loss"], []
    for runner in runners:
        last, seconds = runner.curve[-1], runner.reaches(goal, "cpu")
        ratio = runners[0].cpu / seconds if seconds else None
        row = {
            "run": runner.name,
            "steps": last["step"],
            "stages": build_plan(runner.recipe, None).stages,
            "curve": runner.curve,
            "cpu": runner.cpu,
            "wall": runner.wall,
            "loss": last["loss"],
            "bits": last["bits"],
            "cpu_to_goal": seconds,
            "times_as_fast": ratio,
        }
        rows.append(row)
        speed = "never there" if ratio is None else f"there after {seconds:.0f} s, {ratio:.2f} times as fast"
        print(
            f"  {runner.name:22} {last['step']:5} steps {runner.cpu:6.0f} s of the processor "
            f"{runner.wall:6.0f} s of the wall  "
            f"loss {last['loss']:.4f}  {last['bits']:.4f} bits per byte; {speed}",
            flush=True,
        )
    return rows


def main() -> None:
    """Train, print, and write the curves where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="nano-dense")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--growth", default="doubling")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    configure_cpu()
    results: dict[str, Any] = {
        "machine": machine(),
        "recipe": args.recipe,
        "overrides": args.overrides,
        "growth": args.growth,
    }
    for seed in args.seeds:
        chosen = arms(args.recipe, [*args.overrides, f"train.seed={seed}"], args.growth)
        runners = [Runner(name, recipe, args.data) for name, recipe in chosen.items()]
        while not all(runner.done for runner in runners):
            for runner in runners:
                if not runner.done:
                    runner.turn()
        print(
            f"seed {seed}: {args.recipe}, stages {build_plan(chosen['growing, equal steps'], None).stages}",
            flush=True,
        )
        results[f"seed {seed}"] = compared(runners)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
