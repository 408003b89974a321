"""Milliseconds a token of batch-1 generation on a CPU: our models beside each other and beside llama.cpp.

    pip install cyllama gguf
    OMP_NUM_THREADS=2 python benchmarks/generation_peers.py small-v2:model.head.kind=columns \\
        --full small-v2 --dense small-dense --threads 2 --json peers.json

Contenders, each in float32 and int8 (llama.cpp: q8_0): v2 with the native step; v2 with a full head, with the
native step and as it was before (blocks compiled by torch.compile); dense with the native step; llama.cpp
with the dense model (the same function: logits are compared first) and with v2's nearest relative
(`gguf_models.py`). `--eager` adds v2 and v2 with a full head without compiling, `--without` leaves out
contenders whose names have a word.

A turn reads random tokens one by one after a prompt of random tokens, and chooses a next token after each,
which is not read. The median of a turn's tokens is its figure; contenders take turns, and of the rounds the
median, lowest and highest are printed. Each turn begins with some tokens that are not measured: threads of
the last contender still wait for work. Weights are fresh and shaken, and the head is scaled until its
distributions have the entropies of a trained model (`--entropy`), because a search over classes reads fewer
rows the surer the model is. The rows it read are printed.

The bytes of a step are arithmetic: active weights with the rows read, and the state. The bandwidth beside
them is measured: torch's sum over 512 MB, a turn in every round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from llama_cpp_peer import LlamaCpp, parity
from torch import Tensor

import braingpt
from braingpt.bench.machine import machine
from braingpt.cli.console import guarded
from braingpt.device.cpu import configure_cpu
from braingpt.errors import UserError
from braingpt.inference.engine import Decoder
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.model.heads.head import RowsRead
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.model.layers import rms_norm
from braingpt.model.lm import LanguageModel

# Tokens of a turn that are not measured; of a contender's first turn, until a compiled model has all forms.
SETTLE, WARM = 5, 48
GREEDY, DRAWN = Sampling(temperature=0), Sampling(temperature=0.8, top_p=0.9, seed=0)


@dataclass
class Contender:
    """Generates token by token: `read` takes a token, `choose` the next one."""

    read: Callable[[int], None]
    choose: Callable[[], Any]
    # Of a step, by arithmetic; rows of the head.
    bytes: float = 0.0
    rows: float = 0.0


def fresh(name: str, options: argparse.Namespace) -> LanguageModel:
    """A recipe's model with changes to it, no layer silent and the head as sure as a trained one."""
    recipe, *changes = name.split(":")
    torch.manual_seed(0)
    model = braingpt.build(braingpt.load_recipe(recipe, changes)).eval()
    with torch.inference_mode(False), torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
        sharpen(model, *options.entropy)
    return model


def sharpen(model: LanguageModel, of_class: float, of_all: float) -> None:
    """Scale the head until the distributions have these mean entropies in nats."""
    ids_BL = torch.randint(0, model.config.vocab, (1, 64))
    # No layer but the head sees the scale, because rows are normalised when looked up.
    x_ND = rms_norm(model._hidden(ids_BL, None, None))[0]
    head = model.embedding
    if isinstance(head, VocabularyColumns):
        scale_to(head.class_weight, lambda: entropy(head.class_log_probs(x_ND)), of_class)
    scale_to(head.weight, lambda: entropy(head.logits(x_ND).log_softmax(-1)), of_all)


def entropy(log_NV: Tensor) -> float:
    return float(-(log_NV.exp() * log_NV).sum(-1).mean())


def scale_to(weight: Tensor, measure: Callable[[], float], goal: float) -> None:
    """Multiply a weight until what falls with its size reaches a goal."""
    original, low, high = weight.clone(), 1e-3, 1e3
    for _ in range(30):
        middle = (low * high) ** 0.5
        weight.copy_(original * middle)
        low, high = (middle, high) if measure() > goal else (low, middle)


def ours(
    name: str,
    options: argparse.Namespace,
    int8: bool,
    compiled: str | None,
    sampling: Sampling = GREEDY,
) -> Contender:
    """A model of ours, compiled by the native step or by a backend of torch.compile, or eager ("")."""
    model = fresh(name, options)
    # Before int8, which leaves no weights to count.
    weights = model.parameters_active() - model.embedding.parameters_active()
    rows = rows_read(model, options, sampling)
    if int8:
        model.to_int8()
    if compiled != "":
        model.compile_steps(compiled)
    if compiled is None and model._native_step is None:
        raise UserError("there is no native step here; install a C++ compiler")
    decoder, sampler = Decoder(model), Sampler(sampling)
    decoder.read(torch.randint(0, model.config.vocab, (1, options.prompt)))
    touched = (weights + rows * model.config.hidden) * (1 if int8 else 4) + model.state_bytes(options.prompt)
    read = lambda token: decoder.step(torch.tensor([token]))  # noqa: E731
    return Contender(read, partial(decoder.sample, sampler), touched, rows)


def rows_read(model: LanguageModel, options: argparse.Namespace, sampling: Sampling) -> float:
    """Rows of the head that are read for a token, over 64 tokens."""
    model.embedding.rows_read = counted = RowsRead()
    decoder, sampler = Decoder(model), Sampler(sampling)
    for token in torch.randint(0, model.config.vocab, (64, 1)):
        decoder.step(token)
        decoder.sample(sampler)
    model.embedding.rows_read = None
    return counted.rows / counted.tokens


def llama_cpp(path: Path, options: argparse.Namespace, sampling: Sampling = GREEDY) -> Contender:
    """llama.cpp with a GGUF file."""
    room = options.prompt + (SETTLE + options.steps) * options.rounds + SETTLE + WARM
    peer = LlamaCpp(path, room, options.threads, sampling)
    peer.read(torch.randint(0, peer.vocab, (options.prompt,)).tolist())
    return Contender(lambda token: peer.read([token]), peer.choose)


def contenders(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Contender]]:
    """How to make each contender, by name."""
    found: dict[str, Callable[[], Contender]] = {}
    for int8 in (False, True):
        kind, file = ("int8", "q8_0") if int8 else ("float32", "f32")
        make = partial(ours, options=options, int8=int8)
        found[f"v2, {kind}"] = partial(make, options.v2, compiled=None)
        found[f"v2, {kind}, drawn"] = partial(make, options.v2, compiled=None, sampling=DRAWN)
        found[f"full head, {kind}"] = partial(make, options.full, compiled=None)
        found[f"full head, {kind}, torch.compile"] = partial(make, options.full, compiled="inductor")
        found[f"dense, {kind}"] = partial(make, options.dense, compiled=None)
        if options.eager and not int8:
            found[f"v2, {kind}, eager"] = partial(make, options.v2, compiled="")
            found[f"full head, {kind}, eager"] = partial(make, options.full, compiled="")
        for model in ("dense", "twin"):
            path = folder / f"{model}-{file}.gguf"
            found[f"llama.cpp {model}, {file}"] = partial(llama_cpp, path, options)
            found[f"llama.cpp {model}, {file}, drawn"] = partial(llama_cpp, path, options, DRAWN)
    return {name: make for name, make in found.items() if not any(word in name for word in options.without)}


def write_files(options: argparse.Namespace, folder: Path) -> float:
    """Write the GGUF files and compare the dense one's logits with ours."""
    try:
        from gguf_models import dense_file, twin_file
    except ImportError:
        raise UserError("gguf is not installed; pip install cyllama gguf") from None
    dense, twin = fresh(options.dense, options), fresh(options.full, options)
    for file, int8 in (("f32", False), ("q8_0", True)):
        dense_file(dense, folder / f"dense-{file}.gguf", int8)
        twin_file(twin, folder / f"twin-{file}.gguf", int8)
    return parity(dense, folder / "dense-f32.gguf", options.threads)


def turn(contender: Contender, steps: int) -> tuple[float, float]:
    """Medians of one token's milliseconds to read it and to choose the next."""
    read, choose = [], []
    for token in torch.randint(0, 16_000, (SETTLE + steps,)).tolist():
        began = time.perf_counter()
        contender.read(token)
        between = time.perf_counter()
        contender.choose()
        read.append(1e3 * (between - began))
        choose.append(1e3 * (time.perf_counter() - between))
    return statistics.median(read[SETTLE:]), statistics.median(choose[SETTLE:])


def bandwidth(values: Tensor) -> float:
    """GB/s of a sum."""
    began = time.perf_counter()
    values.sum()
    return 1e-9 * values.nbytes / (time.perf_counter() - began)


def start_up() -> list[float]:
    """Seconds until the native step is there: compiled, and from the cache of another process."""
    code = (
        "import time; from braingpt.kernels import dispatch; from braingpt.kernels.step import library; "
        "began = time.perf_counter(); reason = dispatch.backends('step')[0].unavailable_reason(); "
        "print(reason or time.perf_counter() - began)"
    )
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"BRAINGPT_CACHE": cache}
        call = partial(subprocess.run, [sys.executable, "-c", code], env=env, capture_output=True, check=True)
        return [float(call().stdout) for _ in range(2)]


def spread(values: list[float], digits: int = 2) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def report(
    rounds: dict[str, list[tuple[float, float]]], rates: list[float], made: dict[str, Contender]
) -> dict[str, Any]:
    """Print and return figures; ratios are of one round, to the v2 of the same kind of numbers."""
    results: dict[str, Any] = {"GB/s": round(statistics.median(rates), 1)}
    print(f"read bandwidth, measured: {spread(rates, 1)} GB/s\n")
    print(
        "| contender | ms a token | of which choosing | x v2's time | head rows | MB a token | of bandwidth |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, turns in rounds.items():
        whole, choosing = [sum(one) for one in turns], [one[1] for one in turns]
        short = "int8" in name or "q8_0" in name
        base = rounds.get("v2, int8" if short else "v2, float32", turns)
        ratios = [sum(one) / sum(other) for one, other in zip(turns, base, strict=True)]
        megabytes = 1e-6 * made[name].bytes
        share = megabytes / statistics.median(whole) / results["GB/s"]
        touched = f"{made[name].rows:,.0f} | {megabytes:.1f} | {share:.0%}" if megabytes else "| |"
        print(f"| {name} | {spread(whole)} | {spread(choosing, 3)} | {spread(ratios)} | {touched} |")
        results[name] = {"ms": whole, "choosing_ms": choosing, "ratio": ratios, "MB": megabytes}
    return results


def main() -> None:
    """Make the contenders, let them take turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("v2", help="a recipe and changes to it, RECIPE:KEY=VALUE:KEY=VALUE")
    parser.add_argument("--full", default="small-v2", help="v2 with a full head, and the twin's shape")
    parser.add_argument("--dense", default="small-dense")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30, help="of a turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--without", nargs="+", default=[], metavar="WORD")
    parser.add_argument(
        "--entropy",
        type=float,
        nargs=2,
        default=[2.7, 5.9],
        metavar=("CLASS", "TOKEN"),
        help="nats of the heads' distributions; the default is that of tiny-v2 after 1.2M tokens of Korean",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    configure_cpu()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"start_up_seconds": start_up()}
    print(
        "native step, seconds until it is there: {:.1f} compiled, {:.2f} cached".format(
            *results["start_up_seconds"]
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        makers = contenders(options, Path(folder))
        if any("llama.cpp" in name for name in makers):
            results["parity"] = write_files(options, Path(folder))
            print(f"llama.cpp's dense logits differ by {results['parity']:.1e} of their spread at most")
        made: dict[str, Contender] = {}
        for name, make in makers.items():
            began = time.perf_counter()
            made[name] = make()
            turn(made[name], WARM)
            print(f"{name}: {time.perf_counter() - began:.1f} s to begin", flush=True)
    values = torch.ones(128 * 2**20)
    rates, rounds = [], {name: [] for name in made}
    for _ in range(options.rounds):
        rates += [max(bandwidth(values) for _ in range(3))]
        for name, contender in made.items():
            rounds[name].append(turn(contender, options.steps))
    results |= report(rounds, rates, made)
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items()}
        content = {"machine": machine(), "settings": settings, "results": results}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
