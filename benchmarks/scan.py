"""The state-space scan, forward and backward, by every path that runs on this device: interleaved rounds,
medians.

    # the shape of `small` recipes: 8 heads of 64 channels, state 64, 1,024 tokens
    python benchmarks/scan.py
    python benchmarks/scan.py --batch 32 --dtype bfloat16 --device cuda --chunk 64 128 256 --json scan.json

Each path runs at each of the chunks that it takes, so that libraries are compared at their best; the last
line is ours against the better of the others. On a CPU the processor's time stands beside the clock's: with
other programs on the machine it varies less. On a GPU the most memory a call took.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from braingpt.bench.machine import machine
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.kernels import dispatch
from braingpt.kernels.scan import scan

# Calls of a round.
CALLS = {"cuda": 20, "cpu": 1}


def available(device: str, reference: bool) -> list[str]:
    """Paths that run on this device, and why the others do not, printed."""
    names = []
    for path in dispatch.backends("scan"):
        reason = path.unavailable_reason()
        if reason is None and not path.supports(torch.empty(0, device=device)):
            reason = f"not for {device}"
        if path.name == "torch" and not reference:
            reason = "one token at a time; --reference times it too"
        if reason is None:
            names.append(path.name)
        else:
            print(f"without {path.name}: {reason}")
    return names


def inputs(args: argparse.Namespace) -> list[torch.Tensor]:
    """As the mixer makes them: x, b and c are parts of one tensor."""
    kind = {"device": args.device, "dtype": getattr(torch, args.dtype)}
    inner = args.heads * args.head
    wide = torch.randn(args.batch, args.length, inner + 2 * args.state, **kind)
    x, b, c = (t.detach() for t in wide.split([inner, args.state, args.state], -1))
    dt = F.softplus(torch.randn(args.batch, args.length, args.heads, device=args.device) - 4)
    a = -torch.linspace(1, 16, args.heads, device=args.device)
    state = torch.zeros(args.batch, args.heads, args.state, args.head, device=args.device)
    return [t.requires_grad_() for t in (x.unflatten(-1, (args.heads, -1)), dt, a, b, c, state)]


def rows(names: list[str], chunks: list[int], dtype: str) -> dict[str, tuple[str, int]]:
    """What is timed, by its name: path and chunk.

    Our kernels take blocks of tokens up to a size; fla and the reference have no choice.
    """
    found = {}
    for name in names:
        for chunk in chunks:
            if name == "triton":
                from braingpt.kernels.scan.triton_ops import BLOCK

                chunk = min(chunk, BLOCK[getattr(torch, dtype).itemsize])
            found[name if name in ("fla", "torch") else f"{name}, chunk {chunk}"] = name, chunk
    return found


def timed(
    name: str, tensors: list[torch.Tensor], run: torch.Tensor | None, upstream: torch.Tensor, chunk: int
) -> tuple[float, float]:
    """Seconds of the clock and of the processor for one forward and backward."""
    device = upstream.device.type
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(CALLS[device]):
        y, _ = scan._IMPLEMENTATIONS[name](*tensors, run, chunk)
        torch.autograd.grad(y, tensors[:-1], upstream)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / CALLS[device], (time.process_time() - cpu) / CALLS[device]


def memory(path: str, *call) -> int | None:
    """Bytes that a call takes at most beyond its inputs, on a GPU; the call before it compiles, tunes and
    allocates.
    """
    timed(path, *call)
    if call[0][0].device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    timed(path, *call)
    return torch.cuda.max_memory_allocated() - before


def verdict(rounds: dict[str, list[tuple[float, float]]], paths: dict[str, tuple[str, int]]) -> str | None:
    """Our best row beside the best of the libraries: the median of the rounds' ratios.

    None where no library ran.
    """

    def best(*names: str) -> str | None:
        rows = [row for row in rounds if paths[row][0] in names]
        return min(rows, key=lambda row: statistics.median(clock for clock, _ in rounds[row]), default=None)

    ours, theirs = best("triton", "chunked"), best("fla", "mamba-ssm")
    if ours is None or theirs is None:
        return None
    ratios = [other / own for (own, _), (other, _) in zip(rounds[ours], rounds[theirs], strict=True)]
    return f"{ours}: {statistics.median(ratios):.2f} times as fast as {theirs}, the best of the others"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default in (
        ("batch", 4),
        ("length", 1024),
        ("heads", 8),
        ("head", 64),
        ("state", 64),
        ("rounds", 9),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--chunk", type=int, nargs="+", default=[64], help="tokens a chunk; several are compared"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--document", type=int, default=0, help="tokens a document of packed batches (0: not packed)"
    )
    parser.add_argument("--reference", action="store_true", help="the token-by-token reference too")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    configure_cpu()
    paths = rows(available(args.device, args.reference), args.chunk, args.dtype)
    tensors = inputs(args)
    run = (
        (torch.arange(args.length, device=args.device) // args.document).expand(args.batch, -1)
        if args.document
        else None
    )
    upstream = torch.randn_like(tensors[0])

    peaks = {}
    for row, (path, chunk) in paths.items():
        try:
            peaks[row] = memory(path, tensors, run, upstream, chunk)
        except Exception as error:
            # A library may refuse this machine in any way; the others are still measured.
            print(f"without {row}: {type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}")
    rounds: dict[str, list[tuple[float, float]]] = {row: [] for row in peaks}
    for _ in range(args.rounds):
        for row in rounds:
            path, chunk = paths[row]
            rounds[row].append(timed(path, tensors, run, upstream, chunk))

    here = machine()
    processor = here["gpu" if args.device == "cuda" else "cpu"]
    print(f"{processor}, {here['threads']} CPU thread(s), torch {here['torch']}")
    heads = f"{args.heads} heads of {args.head}"
    print(f"{args.batch} x {args.length} tokens, {heads}, state {args.state}, {args.dtype}")
    figures = []
    for row, seconds in rounds.items():
        clock, cpu = ([1e3 * one for one in column] for column in zip(*seconds, strict=True))
        figure = {
            "path": row,
            "ms": statistics.median(clock),
            "lowest_ms": min(clock),
            "highest_ms": max(clock),
            "cpu_ms": statistics.median(cpu),
        }
        if peaks[row] is not None:
            figure["peak_MB"] = peaks[row] / 1e6
        figures.append(figure)
        print(
            "  ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else f"{value:>20}"
                for key, value in figure.items()
            )
        )
    said = verdict(rounds, paths)
    if said:
        print(said)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(
                {"machine": here, "settings": vars(args), "paths": figures, "verdict": said}, file, indent=1
            )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
