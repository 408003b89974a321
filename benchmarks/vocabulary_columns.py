"""The head in classes against the full softmax: forward + backward of the loss, and where the time goes.

    python benchmarks/vocabulary_columns.py --hidden 512 256 --threads 1 2

Targets follow Zipf's law over tokens that stand in classes by chance. Rounds are interleaved, and medians
given. One thread is measured by its own processor time, so that other programs disturb less; several threads
by the clock. A share of the machine's speed compares with a square product of 1,024 in the same rounds.
`--ignored` is the share of targets that a loss mask leaves out.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from braingpt.bench.machine import machine
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.kernels.word_softmax import word_log_probs
from braingpt.model.heads.head import TiedHead
from braingpt.model.heads.softmax import TiedEmbedding
from braingpt.model.heads.vocabulary_columns import VocabularyColumns

# Side of the square product that gives the machine's speed.
SQUARE = 1024


def step(loss: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
    """Forward and backward pass of a loss, after which no gradient is left."""

    def run() -> None:
        loss().backward()
        for tensor in inputs:
            tensor.grad = None

    return run


def contestants(
    options: argparse.Namespace, hidden: int
) -> tuple[dict[str, Callable[[], object]], VocabularyColumns]:
    """The works to time, by name, and the head in classes."""
    head, full = VocabularyColumns(options.vocab, hidden, options.width), TiedEmbedding(options.vocab, hidden)
    head.set_classes(torch.randperm(options.vocab))
    nn.init.normal_(head.class_weight, std=0.02)
    x_ND = torch.randn(options.tokens, hidden, requires_grad=True)
    target_N = torch.multinomial(1 / torch.arange(1, options.vocab + 1), options.tokens, replacement=True)
    target_N[torch.rand(options.tokens) < options.ignored] = -100
    slot_N = head.slot[target_N[target_N >= 0]]
    class_N, word_N, counted_KD = slot_N // head.width, slot_N % head.width, x_ND[target_N >= 0].detach()
    counted_KD.requires_grad_()
    square = torch.randn(SQUARE, SQUARE)

    def words() -> Tensor:
        words_CSD = head.weight.unflatten(0, (head.classes, head.width))
        return word_log_probs(counted_KD, words_CSD, class_N, word_N, head.padding).mean()

    def classes() -> Tensor:
        return head.class_log_probs(counted_KD).gather(1, class_N[:, None]).mean()

    def whole(head: TiedHead) -> Callable[[], None]:
        return step(lambda: head.losses(x_ND, target_N), [x_ND, *head.parameters()])

    inputs = [counted_KD, *head.parameters()]
    works: dict[str, Callable[[], object]] = {
        "classes and words": whole(head),
        "of which classes": step(classes, inputs),
        "of which words": step(words, inputs),
        "full softmax": whole(full),
        "square product": lambda: square @ square,
    }
    return works, head


def medians(works: dict[str, Callable[[], object]], rounds: int, threads: int) -> dict[str, float]:
    """Median milliseconds of each work."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            began = clock()
            work()
            times[name].append(1e3 * (clock() - began))
    # The first round warms up.
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main() -> None:
    """Take rounds in turn for each shape and number of threads, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    for name, value in {"tokens": 4096, "vocab": 16_448, "width": 128, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ignored", type=float, default=0.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    configure_cpu()
    rows = []
    print(machine())
    print(f"{'hidden':>6} {'threads':>7} {'work':22} {'ms':>9} {'GFLOP':>7} {'GFLOP/s':>8} {'of square':>13}")
    for hidden in options.hidden:
        torch.manual_seed(0)
        works, head = contestants(options, hidden)
        # A multiplication and an addition; forward, and the gradients of both factors.
        per_row = 6 * hidden * options.tokens * (1 - options.ignored)
        flop = {
            "classes and words": per_row * (head.classes + head.width),
            "of which classes": per_row * head.classes,
            "of which words": per_row * head.width,
            "full softmax": 6 * hidden * options.tokens * options.vocab,
            "square product": 2 * SQUARE**3,
        }
        for threads in options.threads:
            torch.set_num_threads(threads)
            found = medians(works, options.rounds, threads)
            speed = {name: flop[name] / ms / 1e6 for name, ms in found.items()}
            for name, ms in found.items():
                share = speed[name] / speed["square product"]
                rows.append(
                    {"hidden": hidden, "threads": threads, "work": name, "ms": ms, "gflop": flop[name] / 1e9}
                )
                print(
                    f"{hidden:6} {threads:7} {name:22} {ms:9.1f} {flop[name] / 1e9:7.1f} {speed[name]:8.1f}"
                    f" {share:13.0%}"
                )
    if options.out:
        shape = {name: value for name, value in vars(options).items() if name != "out"}
        report = {"machine": machine(), "shape": shape, "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
