"""Milliseconds of one row times a weight on a CPU, by torch's product and as a compiler shares it: what
bounds decoding.

    python benchmarks/one_row.py

Weights are taken in turn out of 128 MB, so that none is still in the cache; the lowest of 200 each, paths in
turn, with one thread and with two.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from braingpt.cli.console import guarded
from braingpt.kernels.int8 import int8_linear, quantize
from braingpt.kernels.linear import linear

SHAPES = [(16_448, 512), (2_560, 640), (1_536, 512), (512, 512)]
BYTES = 128e6


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(
        "| weight | threads | torch's product | written out, compiled | GB/s "
        "| int8, packed | int8, compiled |\n"
        "|---|---|---|---|---|---|---|"
    )
    compiled, compiled_int8 = torch.compile(linear, dynamic=False), torch.compile(int8_linear, dynamic=False)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        # The number of threads that share a loop is fixed when the loop is compiled.
        torch.compiler.reset()
        for shape in SHAPES:
            weights = [torch.randn(shape) for _ in range(max(2, round(BYTES / 4 / shape[0] / shape[1])))]
            packed = [quantize(weight) for weight in weights]
            x = torch.randn(1, shape[1])
            with torch.inference_mode():
                plain, shared, int8, shared_int8 = (
                    fastest(call, inputs)
                    for call, inputs in (
                        (lambda weight, x=x: F.linear(x, weight), weights),
                        (lambda weight, x=x: compiled(x, weight), weights),
                        (lambda pair, x=x: int8_linear(x, *pair), packed),
                        (lambda pair, x=x: compiled_int8(x, *pair), packed),
                    )
                )
            rate = 4e-6 * weights[0].numel() / shared
            print(
                f"| {shape[0]:,} x {shape[1]} | {threads} | {plain:.2f} | {shared:.2f} | {rate:.1f} "
                f"| {int8:.2f} | {shared_int8:.2f} |",
                flush=True,
            )


def fastest(call: Callable, inputs: list) -> float:
    best = float("inf")
    for one in itertools.islice(itertools.cycle(inputs), 200):
        began = time.perf_counter()
        call(one)
        best = min(best, time.perf_counter() - began)
    return 1e3 * best


if __name__ == "__main__":
    raise SystemExit(guarded(main))
