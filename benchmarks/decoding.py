"""Milliseconds a token of batch-1 decoding after a prompt: models, dtypes and lengths of prompts in turn.

    python benchmarks/decoding.py small-v2 small-v1 small-dense --peer gpt2 \\
        --dtype float32 int8 --compile --rounds 3
    python benchmarks/decoding.py small-v2 --prompt 1024 32768
    # a recipe and changes to it; 831M parameters both
    python benchmarks/decoding.py small-v2-5pct large-dense:model.layers=41

Fresh weights, shaken so that no layer is silent, and random tokens; a round's figure is its whole time over
its tokens, and of the rounds the median, lowest and highest are printed. `--compile` compiles the steps of
all models alike, after which some steps are left out. The peer is Hugging Face's GPT-2 (an installed
`transformers`) with the vocabulary, width and heads of the last recipe and the layers that bring it nearest
its total.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import braingpt
from braingpt.bench.peers import build_peer
from braingpt.cli.console import guarded
from braingpt.device.compile import compile_steps
from braingpt.device.cpu import configure_cpu
from braingpt.inference.engine import Decoder

# Steps until a compiled model has all its forms: those of a token that attention chooses come late.
WARM = 48
# Reads one token.
Step = Callable[[torch.Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--peer", choices=["gpt2"], nargs="*", default=[])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "int8"], default=["float32"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--prompt", type=int, nargs="+", default=[1024])
    parser.add_argument("--steps", type=int, default=50, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    configure_cpu()
    room = max(options.prompt) + WARM + options.steps * options.rounds
    contenders: dict[str, Step] = {}
    for length in options.prompt:
        for name in options.recipes:
            for dtype in options.dtype:
                contenders[f"{name} {dtype}, {length:,} before"] = ours(name, dtype, length, options.compile)
        for _ in options.peer:
            contenders[f"gpt2 float32, {length:,} before"] = gpt2(
                options.recipes[-1], length, room, options.compile
            )
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, step in contenders.items():
            tokens = torch.randint(0, 16_000, (options.steps, 1))
            began = time.perf_counter()
            for token in tokens:
                step(token)
            rounds[name].append(1e3 * (time.perf_counter() - began) / options.steps)
    for name, found in rounds.items():
        print(f"{name}: {statistics.median(found):.2f} ms a token ({min(found):.2f}-{max(found):.2f})")


def ours(name: str, dtype: str, prompt: int, compiled: bool) -> Step:
    recipe, *changes = name.split(":")
    model = braingpt.build(braingpt.load_recipe(recipe, changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    if dtype == "int8":
        model.to_int8()
    if compiled:
        compile_steps(model, model.device)
    decoder = Decoder(model)
    for part in torch.randint(0, model.config.vocab, (1, prompt)).split(4096, 1):
        decoder.read(part)
    return warmed(decoder.step, f"{name} {dtype}")


def gpt2(like: str, prompt: int, room: int, compiled: bool) -> Step:
    recipe = braingpt.load_recipe(like)
    total = braingpt.build(recipe).parameters_total()
    model = build_peer("gpt2-hf", recipe.model, total, room).eval()
    print(
        f"gpt2: {model.parameters_total():,} parameters in {model.config.layers} layers, {like}: {total:,}",
        flush=True,
    )
    if compiled:
        compile_steps(model, model.device)
    decoder = Decoder(model)
    decoder.read(torch.randint(0, model.config.vocab, (1, prompt)))
    return warmed(decoder.step, "gpt2")


def warmed(step: Step, name: str) -> Step:
    began = time.perf_counter()
    for token in torch.randint(0, 16_000, (WARM, 1)):
        step(token)
    print(f"{name}: {time.perf_counter() - began:.1f} s for the first {WARM} steps", flush=True)
    return step


if __name__ == "__main__":
    raise SystemExit(guarded(main))
