"""Milliseconds a token of batch-1 decoding after a long prompt, models and dtypes in turn.

    python benchmarks/decoding.py small-v2 small-dense --dtype float32 int8 --rounds 3

Fresh weights, shaken so that no layer is silent; the median of each round's steps, then the median of the rounds.
"""

import argparse
import statistics
import time

import torch

import braingpt
from braingpt.inference.engine import Decoder
from braingpt.train.setup import settle_cpu

WARM = 12  # steps in which a compiled model takes its last form


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "int8"], default=["float32"])
    parser.add_argument("--compile", action="store_true", help="compile the steps of all of them")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settle_cpu()
    decoders = {(name, dtype): decoder(name, dtype, options.prompt, options.compile) for name in options.recipes for dtype in options.dtype}
    rounds: dict[tuple[str, str], list[float]] = {key: [] for key in decoders}
    for _ in range(options.rounds):
        for key, one in decoders.items():
            rounds[key].append(statistics.median(step(one) for _ in range(options.steps)))
    for (name, dtype), found in rounds.items():
        print(f"{name} {dtype}: {1e3 * statistics.median(found):.1f} ms a token ({1e3 * min(found):.1f}-{1e3 * max(found):.1f})")


def decoder(name: str, dtype: str, prompt: int, compiled: bool) -> Decoder:
    model = braingpt.build(braingpt.load_recipe(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    if dtype == "int8":
        model.to_int8()
    if compiled:
        model.compile_steps()
    one = Decoder(model)
    one.read(torch.randint(0, model.config.vocab, (1, prompt)))
    for _ in range(WARM if compiled else 1):
        step(one)
    return one


def step(one: Decoder) -> float:
    began = time.perf_counter()
    one.step(torch.tensor([5]))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
