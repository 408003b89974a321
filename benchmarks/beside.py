"""Training, generation and preparation alone, beside one and beside two busy programs.

    braingpt data prepare sample
    python benchmarks/beside.py --data data/sample --rounds 3 --json-file beside.json

Whole commands in processes of their own, in turn; the busy programs are endless loops on one thread each, in
sessions of their own, as in another terminal. A figure is the speed beside them as a share of the fair part:
the speed alone, times the part of the machine that is this program's when all programs get the same and none
gets more than it can use. With n cores and b loops that is the larger of (n - b) / n and 1 / (b + 1).

`--without` also measures with OMP_PROC_BIND=false, which leaves threads where the system puts them: what it
was like before, and what looking at the machine costs alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from braingpt.utils.child import module_command

OFF = {"OMP_PROC_BIND": "false"}
BESIDE = (0, 1, 2)
# Ends with this process, also where it is killed.
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""
# Records of the first steps are left out: the machine is looked at, caches are cold.
WARM_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--recipe", default="nano-v2")
    parser.add_argument("--steps", type=int, default=120, help="of a training")
    parser.add_argument("--tokens", type=int, default=600, help="of a generated text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", action="store_true", help="measure without the sharing as well")
    parser.add_argument("--json-file", type=Path)
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        print(decode(options.decode, options.tokens))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train(options, folder / "run", {})
        speeds = measure(
            options,
            {
                "training, tokens/s": lambda env: train(options, folder / "other", env),
                "generation, tokens/s": lambda env: generate(options, folder / "run", env),
                "preparation, MB/s": lambda env: prepare(folder / "prepared", env),
            },
        )
    show(speeds)
    if options.json_file:
        options.json_file.write_text(json.dumps(speeds, indent=1))


Speeds = dict[str, dict[str, dict[int, list[float]]]]


def measure(options: argparse.Namespace, work: dict[str, Callable[[dict[str, str]], float]]) -> Speeds:
    """Speeds of all rounds, by kind of work, way (sharing, as before) and number of busy programs."""
    ways = {"sharing": {}} | ({"as before": OFF} if options.without else {})
    speeds: Speeds = {name: {way: {busy: [] for busy in BESIDE} for way in ways} for name in work}
    for round_number in range(options.rounds):
        for name, run in work.items():
            for busy in BESIDE:
                # The order changes, so that neither way is always the first.
                for way in list(ways)[:: 1 if round_number % 2 else -1]:
                    with busy_programs(busy):
                        speed = run(ways[way])
                    speeds[name][way][busy].append(speed)
                    print(f"{round_number + 1}  {name}, beside {busy}, {way}: {speed:.4g}", file=sys.stderr)
    return speeds


def show(speeds: Speeds) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load before {os.getloadavg()[0]:.1f}; median of the rounds (lowest to highest)")
    for name, ways in speeds.items():
        for way, by_busy in ways.items():
            alone = statistics.median(by_busy[0])
            line = [f"alone {spread(by_busy[0])}"]
            for busy in BESIDE[1:]:
                fair = alone * max((cores - busy) / cores, 1 / (busy + 1))
                share = statistics.median(by_busy[busy]) / fair
                line.append(f"beside {busy} {spread(by_busy[busy])}: {share:.0%} of the fair part")
            print(f"{name}, {way}: {'; '.join(line)}")
        if len(ways) == 2:
            pairs = zip(ways["sharing"][0], ways["as before"][0], strict=True)
            print(f"{name}, alone, sharing / as before: {statistics.median(a / b for a, b in pairs):.3f}")


def spread(figures: list[float]) -> str:
    return f"{statistics.median(figures):.4g} ({min(figures):.4g} to {max(figures):.4g})"


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many endless loops, each in a session of its own."""
    loops = [
        subprocess.Popen([sys.executable, "-S", "-c", BUSY], start_new_session=True) for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def braingpt(words: list[str], environment: dict[str, str]) -> str:
    """What the command prints on standard output."""
    done = subprocess.run(
        module_command("braingpt.cli.main", *words),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"braingpt {' '.join(words)}\n{done.stderr}")
    return done.stdout


def train(options: argparse.Namespace, out: Path, environment: dict[str, str]) -> float:
    """Tokens a second of a run, without its first seconds."""
    if out.exists():
        subprocess.run(["rm", "-r", str(out)], check=True)
    words = ["train", "--recipe", options.recipe, "--data", str(options.data), "--out", str(out), "--json"]
    steps = [f"train.steps={options.steps}", "train.warmup=10", "train.eval_every=100000"]
    braingpt([*words, *(word for step in steps for word in ("--set", step))], environment)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    records = [line for line in lines if line["kind"] == "train"]
    speeds, seconds = [], 0.0
    tokens = records[0]["tokens"]
    for record in records:
        took = tokens / record["tokens_per_second"]
        seconds += took
        if seconds > WARM_SECONDS:
            speeds.append(took)
    return tokens / statistics.mean(speeds)


def generate(options: argparse.Namespace, run: Path, environment: dict[str, str]) -> float:
    """Tokens a second of one row, in a process of its own."""
    words = [sys.executable, "-P", __file__, "--data", "-", "--tokens", str(options.tokens)]
    done = subprocess.run(
        [*words, "--decode", str(run)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    return float(done.stdout)


def decode(run: Path, tokens: int) -> float:
    """Tokens a second, opened as by `generate`; random tokens, since a text may end early."""
    import torch

    from braingpt.cli.console import console
    from braingpt.cli.options import open_run
    from braingpt.inference.engine import Decoder

    model = open_run(run, "cpu", console(stderr=True)).model
    decoder = Decoder(model)
    decoder.read(torch.randint(0, model.config.vocab, (1, 64)))
    for token in torch.randint(0, model.config.vocab, (30, 1)):
        decoder.step(token)
    began = time.perf_counter()
    for token in torch.randint(0, model.config.vocab, (tokens, 1)):
        decoder.step(token)
    return tokens / (time.perf_counter() - began)


def prepare(out: Path, environment: dict[str, str]) -> float:
    """MB of kept text a second."""
    words = ["data", "prepare", "sample", "--out", str(out), "--force", "--json"]
    result = json.loads(braingpt(words, environment))
    return sum(stream["bytes"] for stream in result["streams"]) / 1e6 / result["seconds"]


if __name__ == "__main__":
    main()
