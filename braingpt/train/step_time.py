"""How long a step takes here: a few real steps of a model that is thrown away."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from braingpt.device.cpu import denormals_flushed
from braingpt.device.device import pick_device
from braingpt.recipes import Recipe
from braingpt.train.loop import Trainer
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter

STEPS = 6
# The first steps warm caches and the allocator, and are not counted.
WARMUP = 2


def step_seconds(recipe: Recipe, folders: Sequence[Path], device: str | None = None) -> float:
    """Median seconds of an optimizer step of `recipe` on the prepared `folders`; nothing is written."""
    with denormals_flushed():
        trainer = Trainer(recipe, RunFolder(Path()), folders, pick_device(device), Reporter())
        seconds = []
        for _ in range(STEPS):
            began = time.perf_counter()
            trainer.update()
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARMUP:])
