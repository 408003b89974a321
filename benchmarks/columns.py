"""A layer of columns against the dense MLP of equal total size: forward + backward over many tokens, and one
token at a time.

    python benchmarks/columns.py --columns 2060 --active 16 --out docs/results/columns-cpu.json

Both layers stand alone, without the rest of a model; the columns' time includes their competition and their
shared column. Rounds are interleaved, and medians given; `--compile` compiles both. On a CPU one thread
computes and its own processor time is what counts, so that other programs on the machine disturb less; on a
GPU products run in bfloat16 under autocast, and events on the device are the clock. Decoding counts the bytes
of weights one token must read.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from braingpt.bench.clock import gpu_seconds
from braingpt.bench.machine import machine
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.device.device import autocast
from braingpt.kernels import registry
from braingpt.model.columns.columns import SparseColumns
from braingpt.model.config import SharedColumnsConfig
from braingpt.model.layers import MLP

# Tokens of a round, one at a time.
DECODED = 50


def clocked(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of `work`: this thread's processor time on a CPU, the device's own on a GPU."""
    if device.type == "cuda":
        return gpu_seconds(work)
    began = time.thread_time()
    work()
    return time.thread_time() - began


class Contestant:
    """One layer, the work it is timed on, and its times."""

    def __init__(self, layer: nn.Module, tokens: int, hidden: int, device: torch.device) -> None:
        self.layer, self.device = layer.to(device), device
        self.x_1ND = torch.randn(1, tokens, hidden, device=device, requires_grad=True)
        self.one_111D = torch.randn(DECODED, 1, 1, hidden, device=device)
        self.times: dict[str, list[float]] = {"training": [], "decoding": []}

    def run(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        return self.layer(x_BLD) if isinstance(self.layer, MLP) else self.layer(x_BLD, None)

    def train(self) -> None:
        """One forward and backward pass."""
        with autocast(self.device, torch.bfloat16 if self.device.type == "cuda" else None):
            y_1ND = self.run(self.x_1ND)
        y_1ND.backward(torch.ones_like(y_1ND))
        for tensor in (self.x_1ND, *self.layer.parameters()):
            tensor.grad = None

    @torch.no_grad()
    def decode(self) -> None:
        """Token after token."""
        for x_11D in self.one_111D:
            self.run(x_11D)

    def round(self) -> None:
        """Both works once, timed."""
        self.times["training"].append(clocked(self.train, self.device))
        self.times["decoding"].append(clocked(self.decode, self.device) / DECODED)

    def figures(self) -> dict[str, float]:
        """Medians and sizes."""
        active = self.layer.parameters_active()
        return {
            "parameters": sum(p.numel() for p in self.layer.parameters()),
            "active_parameters": active,
            "decoding_bytes": 4 * active,
            "training_gflop": 6 * active * self.x_1ND.shape[1] / 1e9,
            "training_ms": 1e3 * statistics.median(self.times["training"]),
            "training_ms_lowest": 1e3 * min(self.times["training"]),
            "decoding_us": 1e6 * statistics.median(self.times["decoding"]),
            "decoding_us_lowest": 1e6 * min(self.times["decoding"]),
        }


def main() -> None:
    """Build, warm up, take rounds in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {
        "columns": 2060,
        "width": 64,
        "active": 16,
        "shared": 1,
        "hidden": 512,
        "tokens": 4096,
        "rounds": 5,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="both layers through torch.compile")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    configure_cpu()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SharedColumnsConfig(
        count=options.columns, width=options.width, active=options.active, shared=options.shared
    )
    columns = SparseColumns(options.hidden, config)
    # A fresh layer's output weights are zero.
    nn.init.normal_(columns.weight, std=0.03)
    total = sum(p.numel() for p in columns.parameters())
    contestants = {
        "columns": Contestant(columns, options.tokens, options.hidden, device),
        "dense": Contestant(
            MLP(options.hidden, total // (2 * options.hidden)), options.tokens, options.hidden, device
        ),
    }
    for contestant in contestants.values():
        if options.compile:
            contestant.layer.compile()
        contestant.round()
        contestant.times = {name: [] for name in contestant.times}
    for _ in range(options.rounds):
        for contestant in contestants.values():
            contestant.round()

    figures = {name: contestant.figures() for name, contestant in contestants.items()}
    shape = {name: value for name, value in vars(options).items() if name not in ("out", "device")}
    path = next(row["runs"] for row in registry.report() if row["operation"] == "columns")
    report = {"machine": machine(), "device": str(device), "path": path, "shape": shape, "figures": figures}
    print(f"{report['machine']}\n{shape}, {path}")
    print(f"{'':22}{'columns':>16}{'dense':>16}{'dense / columns':>18}")
    for key in figures["columns"]:
        ours, theirs = (figures[name][key] for name in ("columns", "dense"))
        print(f"{key:22}{ours:>16,.1f}{theirs:>16,.1f}{theirs / ours:>18.1f}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
