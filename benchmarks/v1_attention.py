"""V1's sparse attention by its paths, in turns: one layer alone and the whole recipe, forward and backward;
one query alone, as in a step, and steps of generation.

    # small-v1, one row of 1,024 tokens; on a CPU the processor's time
    python benchmarks/v1_attention.py
    python benchmarks/v1_attention.py --lengths 512,2048 --rounds 3 --parts layer
    python benchmarks/v1_attention.py --lengths 256,1024,4096 --rounds 9 --parts query generation

"torch" is the reference, which holds the L x T scores; memory is what a call takes at its peak beyond what is
held before (on a CPU of the process, which keeps what the path before it has freed: the later paths show too
little rather than too much).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch

import braingpt
from braingpt.bench.machine import forget_peak, machine, resident_bytes
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.inference.engine import Decoder
from braingpt.kernels import dispatch
from braingpt.kernels.sparse_attention.sparse_attention import magnitude_attention

PARTS = ("layer", "model", "query", "generation")


def seconds(call: Callable[[], None], device: str) -> float:
    """Of the processor on a CPU, which other programs disturb less; of the clock on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.process_time if device == "cpu" else time.perf_counter
    begin = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - begin


def peak(call: Callable[[], None], device: str) -> int:
    """Bytes at the peak beyond those held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    forget_peak()
    before = resident_bytes()
    call()
    return resident_bytes(peak=True) - before


def compare(calls: dict[str, Callable[[], None]], rounds: int, device: str) -> None:
    """Print medians and lowest of each path, in turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    took = {}
    for name, call in calls.items():
        os.environ["BRAINGPT_KERNELS"] = f"magnitude_attention={name}"
        took[name] = peak(call, device)
    for _ in range(rounds):
        for name, call in calls.items():
            os.environ["BRAINGPT_KERNELS"] = f"magnitude_attention={name}"
            spent[name].append(seconds(call, device))
    for name, times in spent.items():
        middle, least = 1e3 * statistics.median(times), 1e3 * min(times)
        print(
            f"  {name:8} median {middle:9.1f} ms   lowest {least:9.1f} ms   peak {took[name] / 1e6:8.1f} MB"
        )
    first, *_, last = spent
    ratios = [b / a for a, b in zip(spent[first], spent[last], strict=True)]
    print(f"  {last} over {first}: median of pairs {statistics.median(ratios):.2f}")


def vectors(model: torch.nn.Module, queries: int, keys: int, device: str) -> list[torch.Tensor]:
    """Queries, keys and values of one layer, at random."""
    config = model.config
    shape = (config.hidden // config.heads,)
    return [
        torch.randn(1, config.heads, count, *shape, device=device).requires_grad_()
        for count in (queries, keys, keys)
    ]


def layer(model: torch.nn.Module, length: int, device: str) -> tuple[str, Callable[[], None], int]:
    """One layer's attention, forward and backward."""
    q, k, v = vectors(model, length, length, device)
    attention = model.config.attention

    def call() -> None:
        y, _ = magnitude_attention(q, k, v, None, attention.keep, attention.floor)
        torch.autograd.grad(y, (q, k, v), torch.ones_like(y))

    return (
        f"one layer's attention of {model.config.heads} heads x {q.shape[-1]}, forward and backward",
        call,
        1,
    )


def whole(model: torch.nn.Module, length: int, device: str) -> tuple[str, Callable[[], None], int]:
    """The model, forward and backward."""
    ids = torch.randint(model.config.vocab, (1, length + 1), device=device)

    def call() -> None:
        model.train()(ids[:, :-1], ids[:, 1:]).loss.backward()
        model.zero_grad()

    return "the whole model, forward and backward", call, 1


def query(model: torch.nn.Module, length: int, device: str) -> tuple[str, Callable[[], None], int]:
    """What a step does in one layer: one query over all keys."""
    q, k, v = vectors(model, 1, length, device)
    attention = model.config.attention

    def call() -> None:
        with torch.inference_mode():
            for _ in range(20):
                magnitude_attention(q, k, v, None, attention.keep, attention.floor)

    return "one layer's attention of one query, twenty times", call, 3


def generation(model: torch.nn.Module, length: int, device: str) -> tuple[str, Callable[[], None], int]:
    """Steps after a prompt; the cache grows along."""
    decoder = Decoder(model.eval())
    decoder.read(torch.randint(model.config.vocab, (1, length), device=device))

    def call() -> None:
        for _ in range(8):
            decoder.step(torch.tensor([5], device=device))

    return "eight steps of generation", call, 3


WORKS = {"layer": layer, "model": whole, "query": query, "generation": generation}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="small-v1")
    parser.add_argument("--lengths", default="1024", help="tokens a row, several parted by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    configure_cpu()
    here = machine()
    processor = here["gpu" if args.device == "cuda" else "cpu"]
    print(f"{processor}, {torch.get_num_threads()} CPU thread(s), torch {here['torch']}")
    probe = torch.zeros(1, 1, 2, 8, device=args.device)
    names = [
        path.name
        for path in dispatch.backends("magnitude_attention")
        if path.unavailable_reason() is None and path.supports(probe)
    ]
    warm = torch.randn(1, 1, 70, 8, device=args.device).requires_grad_()
    # Libraries loaded on first use are not the call's memory.
    for name in names:
        os.environ["BRAINGPT_KERNELS"] = f"magnitude_attention={name}"
        magnitude_attention(warm, warm, warm, None, 0.05, 4)[0].sum().backward()
    recipe = braingpt.load_recipe(args.recipe)
    model = braingpt.build(recipe).to(args.device)
    for length in map(int, args.lengths.split(",")):
        for part in args.parts:
            title, call, often = WORKS[part](model, length, args.device)
            print(f"{length} tokens, {recipe.name}: {title}")
            compare(dict.fromkeys(names, call), often * args.rounds, args.device)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
