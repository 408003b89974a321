"""Adaptive depth: what a token that halts early costs in quality, for equal tokens, and what it saves in
processor time.

    python benchmarks/adaptive_depth.py --data data/korean data/fineweb \\
        --layers 12 --share 0.6 0.8 0.9 --steps 700
    python benchmarks/adaptive_depth.py --data data/korean data/fineweb \\
        --layers 12 --share 0.6 --exits 6 --steps 700
    # shallow models, all tokens through all layers
    python benchmarks/adaptive_depth.py --data data/korean data/fineweb --layers 4 7 --share --steps 700

For each depth models of the shape of `nano-v2` (width 128, selective attention in one layer of four) are
trained on the same batches: all tokens through all layers, and with exits before the layers named, by default
all from a third of the depth on. Reported: validation loss, perplexity against that of all layers, the share
of layers gone through on the validation text, and this process's CPU seconds of training; for models with
exits also at other settings of the dial. One row of JSON a model.

Train on the languages that are validated, in like shares: a language of two per cent of the training text
varies by a third of its perplexity from run to run.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from braingpt.cli.console import guarded
from braingpt.device.cpu import denormals_flushed
from braingpt.device.device import pick_device
from braingpt.evaluation.perplexity import evaluate
from braingpt.recipes import load_recipe
from braingpt.train.loop import Trainer
from braingpt.train.run.folder import RunFolder
from braingpt.train.run.progress import Reporter

CONTEXT = 256
DIAL = (1.0, 0.8, 0.6, 0.5)
# Layers with selective attention by depth: one of three or four.
ATTENTION = {4: [2], 6: [2, 4], 7: [3, 5], 12: [3, 7, 11]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--layers", type=int, nargs="+", choices=ATTENTION, default=[6, 12])
    parser.add_argument("--share", type=float, nargs="*", default=[0.6])
    parser.add_argument("--exits", type=int, nargs="+", help="layers before which tokens may halt")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        for layers in options.layers:
            whole = None
            for share in (1.0, *options.share):
                row = measure(options.data, layers, share, options.exits, options.steps, seed)
                whole = whole or row["loss"]
                row["perplexity"] = f"{math.exp(row['loss'] - whole) - 1:+.1%}"
                print(json.dumps(row), flush=True)


def measure(
    data: list[Path], layers: int, share: float, exits: list[int] | None, steps: int, seed: int
) -> dict[str, Any]:
    settings = {
        "model.layers": layers,
        "model.hidden": 128,
        "model.attention.layers": ATTENTION[layers],
        "model.depth.share": share,
        "train.context": CONTEXT,
        "train.batch": 8,
        "train.steps": steps,
        "train.seed": seed,
        "data.mixture": "proportional",
    }
    if exits and share < 1:
        settings["model.depth.exits"] = exits
    recipe = load_recipe("nano-v2", [f"{key}={value}" for key, value in settings.items()])
    device = pick_device("cpu")
    with denormals_flushed():
        trainer = Trainer(recipe, RunFolder(Path()), data, device, Reporter())
        began = time.process_time()
        for trainer.step in range(steps):
            trainer.update()
        seconds = time.process_time() - began
        row = (
            {"layers": layers, "share": share, "exits": recipe.model.depth_exits, "seed": seed}
            | scored(trainer)
            | {"cpu_seconds": round(seconds, 1)}
        )
        if share < 1:
            least = recipe.model.depth_exits[0] / layers
            row["dial"] = {effort: scored(trainer, effort) for effort in DIAL if effort >= least}
    return row


def scored(trainer: Trainer, effort: float | None = None) -> dict[str, Any]:
    """Loss, that of each language, and the share of the layers gone through, at this setting of the dial."""
    model = trainer.learner.model.eval()
    model.set_effort(effort)
    with model.recording() as records:
        scores = evaluate(
            model,
            trainer.shards,
            trainer.tokenizer,
            context=CONTEXT,
            windows=64,
            device=trainer.placement.device,
        )
    used = sum(record.arrived / record.tokens for record in records) / len(records)
    languages = {name: round(score.nats / score.tokens, 4) for name, score in scores.by_language.items()}
    return {"loss": round(scores.loss, 4), "languages": languages, "layers_used": round(used, 3)}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
