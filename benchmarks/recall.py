"""Multi-query associative recall (Arora et al. 2023, "Zoology") by small v2 models that differ in one layer
only.

    # all models, all learning rates, three seeds
    python benchmarks/recall.py --out runs/recall.jsonl
    # some of them; the tables show everything in the file
    python benchmarks/recall.py --models memory --rates 1e-2 --out FILE

Two layers; the first is Mamba, the second Mamba, selective attention or the delta-rule memory; then the same
with a quarter and an eighth of Mamba's state, once with a memory whose state is no larger than that. All are
trained alike: the same batches, steps and optimizer (Muon, and AdamW for what is no matrix), from 4 pairs in
16 tokens to 64 pairs in 512, each at every learning rate and from every seed. The rate with the best median
over the seeds is what counts.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import torch

from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.evaluation.tasks.recall import recall_accuracy, recall_batch
from braingpt.model.config import V2Config
from braingpt.model.lm import build
from braingpt.optim.optimizer import build_optimizer, set_learning_rate
from braingpt.recipes import load_recipe

VOCAB = 256
# Length and pairs.
LEVELS = ((16, 4), (32, 8), (64, 16), (128, 32), (256, 64), (512, 64))
MODELS = {
    "mamba": {},
    "mamba, state 16": {"mamba": {"state": 16, "head": 32}},
    "selective 10 %": {"attention": {"layers": (1,), "rate": 0.1}},
    "selective 50 %": {"attention": {"layers": (1,), "rate": 0.5}},
    "memory": {"memory": {"layers": (1,), "heads": 1, "key": 64, "value": 64}},
    "memory, mamba 16": {
        "mamba": {"state": 16, "head": 32},
        "memory": {"layers": (1,), "heads": 1, "key": 64, "value": 64},
    },
    "memory 64 x 12, mamba 16": {
        "mamba": {"state": 16, "head": 32},
        "memory": {"layers": (1,), "heads": 1, "key": 64, "value": 12},
    },
    "mamba, state 8": {"mamba": {"state": 8, "head": 32}},
    "memory, mamba 8": {
        "mamba": {"state": 8, "head": 32},
        "memory": {"layers": (1,), "heads": 1, "key": 64, "value": 64},
    },
}


def run(name: str, rate: float, steps: int, tokens: int, seed: int) -> dict:
    """Train one model at one learning rate, and measure its accuracy at every level."""
    shape = {"layers": 2, "hidden": 64, "heads": 2, "vocab": VOCAB, "mamba": {"state": 64, "head": 32}}
    columns = {"count": 1, "width": 64, "active": 1, "shared": 0}
    model = build(V2Config(**shape | {"columns": columns} | MODELS[name]), seed)
    config = load_recipe("nano-v2").train.model_copy(
        update={"optimizer": "muon", "lr": rate, "weight_decay": 0.01, "embedding_rate": 2.0}
    )
    optimizer = build_optimizer(model, config)
    began = time.process_time()
    for step in range(steps):
        done = step / steps
        length, pairs = LEVELS[min(len(LEVELS) - 1, int(done * (len(LEVELS) + 0.5)))]
        set_learning_rate(optimizer, rate * min(1, (step + 1) / 30) * min(1, (1 - done) / 0.3))
        loss = model(*recall_batch(seed, step, tokens // length, length, pairs, VOCAB)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.after_step()
    seconds = time.process_time() - began
    with model.recording() as records:
        accuracy = {
            f"{pairs} in {length}": recall_accuracy(model, length, pairs, rows=8, batches=4)
            for length, pairs in LEVELS
        }
    about = {
        "model": name,
        "rate": rate,
        "steps": steps,
        "tokens": tokens,
        "seed": seed,
        "cpu_seconds": round(seconds),
    }
    return about | {
        "parameters": model.parameters_total(),
        "state_bytes": model.state_bytes(512),
        "loss": loss.item(),
        "chosen": records[1].attended / records[1].tokens,
        "accuracy": accuracy,
    }


def table(path: Path) -> None:
    """Markdown: each model at each rate and number of steps, the best first; medians over the seeds, and all
    seeds of the last level.
    """
    results = [json.loads(line) for line in path.read_text().splitlines()]
    names = list(results[0]["accuracy"])
    runs: dict[tuple, list[dict]] = {}
    for result in results:
        runs.setdefault((result["model"], result["rate"], result["steps"]), []).append(result)
    middle = {
        key: [statistics.median(r["accuracy"][name] for r in seeds) for name in names]
        for key, seeds in runs.items()
    }
    print(
        "| model | parameters | state, bytes | steps | rate | " + " | ".join(names) + " | seeds of the last |"
    )
    print("|---" * (6 + len(names)) + "|")
    for model in MODELS:
        for key in sorted(
            (key for key in runs if key[0] == model), key=lambda key: middle[key][-1], reverse=True
        ):
            first, shares = runs[key][0], [f"{100 * share:.1f} %" for share in middle[key]]
            seeds = ", ".join(f"{100 * r['accuracy'][names[-1]]:.1f}" for r in runs[key])
            cells = [
                model,
                f"{first['parameters']:,}",
                f"{first['state_bytes']:,}",
                str(key[2]),
                f"{key[1]:g}",
                *shares,
                seeds,
            ]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Run what is asked for, adding a line for each to the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-3, 1e-2, 2e-2, 4e-2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=2048, help="a step")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    configure_cpu()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, rate, seed in itertools.product(options.models, options.rates, options.seeds):
        result = run(name, rate, options.steps, options.tokens, seed)
        print(json.dumps(result), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
    table(options.out)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
