"""Our dense transformer beside nanoGPT's and litgpt's of the same total size: training speed, and loss per
token.

    python benchmarks/dense_peers.py speed --size tiny --data data/korean --nanogpt ../nanoGPT [--compile]
    python benchmarks/dense_peers.py learn --size tiny --data data/korean --nanogpt ../nanoGPT \\
        --steps 200 --rates nanogpt=1e-3,2e-3

Each model trains as its own project trains it: its initialisation, its loss, its AdamW (nanoGPT's decay
groups, GELU and learned positions; litgpt's Llama-like GPT with the settings of its TinyLlama recipe), the
head tied to the embedding in all three. Shared are the batches, the shape of the learning rate's schedule,
clipping at 1, precision, threads and whether torch.compile is used. The peers are read from where they are,
`--nanogpt` a checkout and litgpt an installed package (`pip install --no-deps litgpt` and what it imports);
one that is missing is named and left out.

`speed` times whole steps (batch, forward, backward, clipping, optimizer) in interleaved rounds, by the clock
and by the process's CPU time. With one thread (OMP_NUM_THREADS=1) the latter says what a busy machine's clock
cannot. `learn` gives each model the same batches for the same steps at each of several rates, and scores all
on the same validation windows.
"""

import argparse
import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.bench.machine import machine
from braingpt.bench.peers import BUILDERS, check_peer
from braingpt.cli.console import guarded
from braingpt.data.batches.batches import Batches
from braingpt.data.shards.reader import ShardSet
from braingpt.device.compile import compile_training
from braingpt.device.cpu import configure_cpu
from braingpt.errors import UserError
from braingpt.model.lm import build
from braingpt.optim.optimizer import build_optimizer, set_learning_rate
from braingpt.optim.schedule import learning_rate
from braingpt.recipes import Recipe, TrainConfig, load_recipe
from braingpt.tokenizer import Tokenizer

VALIDATION_SEED = 7
# The same in nanoGPT's train.py and in litgpt's config_hub/pretrain/tinyllama.yaml.
ADAMW = {"weight_decay": 0.1, "betas": (0.9, 0.95)}


@dataclass
class Peer:
    """A model with its optimizer.

    `loss(ids, targets)` is the mean in nats; `parts` names what it is made of.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Any
    after_step: Callable[[], None] = lambda: None

    def step(self, ids_BL: Tensor, targets_BL: Tensor, rate: float) -> float:
        """One whole training step; the loss before it."""
        set_learning_rate(self.optimizer, rate)
        loss = self.loss(ids_BL, targets_BL)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.after_step()
        return loss.item()

    @property
    def parameters(self) -> int:
        """All of them, a tied one once."""
        return sum(p.numel() for p in self.model.parameters())


def braingpt_peer(recipe: Recipe, context: int, options: argparse.Namespace) -> Peer:
    """Our dense model with its recipe's optimizer."""
    model = build(recipe, options.seed)
    forward = compile_training(model, model, torch.device("cpu")) if options.compile else model
    return Peer(
        model,
        lambda ids, targets: forward(ids, targets).loss,
        build_optimizer(model, recipe.train),
        model.after_step,
    )


def nanogpt_peer(recipe: Recipe, context: int, options: argparse.Namespace) -> Peer:
    """nanoGPT's model.py in the recipe's depth and width, with the defaults of its train.py."""
    if options.nanogpt is None:
        raise UserError("--nanogpt DIR is not given")
    if not (path := options.nanogpt / "model.py").is_file():
        raise UserError(f"there is no {path}")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    module = sys.modules["nanogpt_model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shape = recipe.model
    torch.manual_seed(options.seed)
    config = module.GPTConfig(
        block_size=context,
        vocab_size=shape.vocab,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.hidden,
        dropout=0.0,
        bias=False,
    )
    with redirect_stdout(None):
        model = module.GPT(config)
        optimizer = model.configure_optimizers(ADAMW["weight_decay"], 1e-3, ADAMW["betas"], "cpu")
    forward = torch.compile(model) if options.compile else model
    return Peer(model, lambda ids, targets: forward(ids, targets)[1], optimizer)


def litgpt_peer(recipe: Recipe, context: int, options: argparse.Namespace) -> Peer:
    """litgpt's GPT from its configuration of TinyLlama, in the recipe's depth and width, as its pretrain.py
    sets it up (tie_embeddings on).
    """
    check_peer("litgpt")
    from litgpt.utils import chunked_cross_entropy

    torch.manual_seed(options.seed)
    model = BUILDERS["litgpt"](recipe.model, context).inner
    forward = torch.compile(model) if options.compile else model
    loss = lambda ids, targets: chunked_cross_entropy(forward(ids), targets, chunk_size=0)  # noqa: E731
    return Peer(model, loss, torch.optim.AdamW(model.parameters(), lr=1e-3, **ADAMW))


PEERS = {"braingpt": braingpt_peer, "nanogpt": nanogpt_peer, "litgpt": litgpt_peer}


def present(options: argparse.Namespace, recipe: Recipe) -> dict[str, Callable[[], Peer]]:
    """How to make each peer that is there; those that are not are named."""
    makers = {}
    for name in options.only or PEERS:
        try:
            peer = PEERS[name](recipe, options.context, options)
        except UserError as error:
            print(f"{name} is left out: {error}")
            continue
        print(f"{name}: {peer.parameters:,} parameters in all", flush=True)
        makers[name] = lambda name=name, settings=recipe: PEERS[name](settings, options.context, options)
    return makers


def speed(options: argparse.Namespace, recipe: Recipe, shards: ShardSet) -> dict[str, Any]:
    """Tokens a second of whole steps, and how often ours is as fast: medians over rounds in which each takes
    its turn.
    """
    batches = Batches(shards, "train", options.batch, options.context, options.seed)
    peers = {name: make() for name, make in present(options, recipe).items()}
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in clocks} for name in peers}
    # The first turn compiles and warms up, and is not counted.
    for turn in range(-1, options.rounds):
        for name, peer in peers.items():
            began = {clock: read() for clock, read in clocks.items()}
            for step in range(options.steps):
                batch = batches.batch(max(0, turn) * options.steps + step)
                peer.step(batch.ids_BL, batch.targets_BL, 1e-3)
            for clock, read in clocks.items():
                seconds[name][clock].append((read() - began[clock]) / options.steps)
    tokens = options.batch * options.context
    results = {}
    for name, by_clock in seconds.items():
        counted = {clock: values[1:] for clock, values in by_clock.items()}
        ours = seconds.get("braingpt", by_clock)
        results[name] = {"parameters": peers[name].parameters} | {
            clock: {
                "tokens_per_second": round(tokens / statistics.median(values)),
                "lowest": round(tokens / max(values)),
                "highest": round(tokens / min(values)),
                "braingpt_over_it": round(
                    statistics.median(b / a for a, b in zip(ours[clock][1:], values, strict=True)), 3
                ),
            }
            for clock, values in counted.items()
        }
        print(name, json.dumps(results[name]), flush=True)
    return results


def learn(options: argparse.Namespace, recipe: Recipe, shards: ShardSet) -> dict[str, Any]:
    """Validation loss after the same tokens at each rate; every run is written down as soon as it ends."""
    rates = dict(pair.split("=", 1) for pair in options.rates)
    results: dict[str, Any] = {}
    for name, make in present(options, recipe).items():
        for rate in map(float, rates.get(name, str(recipe.train.lr)).split(",")):
            torch.manual_seed(options.seed)
            results[f"{name} {rate:g}"] = run = learn_once(make(), rate, options, recipe.train, shards)
            print(f"{options.label or name} {rate:g}: {json.dumps(run)}", flush=True)
    return results


def learn_once(
    peer: Peer, rate: float, options: argparse.Namespace, config: TrainConfig, shards: ShardSet
) -> dict[str, Any]:
    """Train for the steps asked for and score."""
    batches = Batches(shards, "train", options.batch, options.context, options.seed)
    schedule = config.model_copy(update={"steps": options.steps, "warmup": options.steps // 10, "lr": rate})
    losses, began = [], time.process_time()
    for step in range(options.steps):
        batch = batches.batch(step)
        losses.append(peer.step(batch.ids_BL, batch.targets_BL, learning_rate(step, schedule)))
        if not math.isfinite(losses[-1]):
            break
    seconds = time.process_time() - began
    tail = losses[-max(1, options.steps // 10) :]
    validation = score(peer, options, shards)
    return {
        "validation": round(validation, 4),
        "training": round(statistics.mean(tail), 4),
        "seed": options.seed,
        "cpu_seconds": round(seconds),
    }


@torch.no_grad()
def score(peer: Peer, options: argparse.Namespace, shards: ShardSet) -> float:
    """Mean loss over validation windows, the same for all."""
    peer.model.eval()
    batches = Batches(shards, "validation", options.batch, options.context, VALIDATION_SEED)
    drawn = (batches.batch(i) for i in range(max(1, options.windows // options.batch)))
    return statistics.mean(peer.loss(batch.ids_BL, batch.targets_BL).item() for batch in drawn)


def main() -> None:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "learn"])
    parser.add_argument(
        "--size", default="tiny", help="the recipe SIZE-dense gives the shape and our optimizer"
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--only", nargs="+", choices=list(PEERS))
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="of our recipe")
    parser.add_argument(
        "--rates",
        nargs="+",
        default=[],
        metavar="NAME=RATE,RATE",
        help="learn: rates to try, by default the recipe's",
    )
    parser.add_argument("--steps", type=int, default=2, help="of each turn (speed), of each run (learn)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=128, help="of validation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--label", help="printed in place of the name, for runs with --set")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    configure_cpu()
    recipe = load_recipe(f"{options.size}-dense", options.overrides)
    shards = ShardSet.open([options.data], Tokenizer.default())
    results = (speed if options.what == "speed" else learn)(options, recipe, shards)
    if options.json:
        settings = {
            key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()
        }
        options.json.write_text(
            json.dumps({"machine": machine(), "settings": settings, "results": results}, indent=1),
            encoding="utf-8",
        )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
