"""Kill a training run again and again, resume it each time, and compare the end with a run that was never
disturbed.

    python benchmarks/faults.py --data data/sample --kills 60 --out docs/results/faults.json

Each life is a fork of this process that trains with `resume="auto"` and dies of SIGKILL at a random moment;
saves are so frequent that many kills fall into one. After each death: every checkpoint in the list is whole,
and the newest is not older than before. At the end weights, optimizer, metrics (times left out) and the best
validation are those of the undisturbed run, bit for bit. `--disk` does the same once with a disk that is too
small (a tmpfs in a user namespace, Linux): the run waits, room is made, and it ends alike.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from braingpt.checkpoint import checkpoint, listing
from braingpt.cli.console import guarded
from braingpt.recipes import Recipe, load_recipe
from braingpt.train.loop import train
from braingpt.train.run.folder import read_metrics
from braingpt.train.run.progress import Reporter

SMALL = (
    "model.hidden=32",
    "model.layers=2",
    "train.batch=4",
    "train.context=32",
    "train.warmup=3",
    "train.eval_every=20",
    "train.save_every=3",
    "train.eval_windows=2",
)
TIMES = ("tokens_per_second", "seconds", "data_seconds", "memory_bytes")


def same(one: Path, two: Path) -> bool:
    """Whether two finished runs agree in everything but time."""

    def history(run: Path) -> list[dict]:
        return [
            {key: value for key, value in record.items() if key not in TIMES} for record in read_metrics(run)
        ]

    a, b = listing.newest(one), listing.newest(two)
    tensors = [
        (load_file(a / name), load_file(b / name)) for name in ("model.safetensors", "optimizer.safetensors")
    ]
    alike = all(x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in tensors)
    best = [json.loads((run / "best.json").read_text()) for run in (one, two)]
    return alike and history(one) == history(two) and best[0] == best[1]


def life(recipe: Recipe, run: Path, data: Path, seconds: float) -> bool:
    """Train in a fork that is killed after `seconds`; whether it came to its end before."""
    child = os.fork()
    if not child:
        try:
            train(recipe, run, [data], resume="auto", device="cpu")
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not (over := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.01)
    if over[0]:
        status = over[1]
    else:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a life ended with an error of its own")
    return os.WIFEXITED(status)


def kill_again_and_again(
    recipe: Recipe, data: Path, folder: Path, kills: int, seed: int = 0
) -> dict[str, int | bool]:
    """The counts of `kills` deaths, spread over as many runs as they last for.

    AssertionError where something was lost or wrong.
    """
    torch.set_num_threads(1)
    train(recipe, folder / "whole", [data], device="cpu")
    chance = random.Random(seed)
    killed = ended = in_a_save = while_writing_metrics = 0
    while killed < kills:
        run, newest, done = folder / f"run-{ended}", -1, False
        while not done:
            done = life(recipe, run, data, chance.uniform(0.2, 1.5) if killed < kills else 600)
            killed += not done
            every = listing.list_checkpoints(run)
            for path in every:
                checkpoint.verify(path)
            step = checkpoint.read_state(every[-1])["step"] if every else -1
            assert step >= newest, f"step {newest} was saved, then only {step}"
            newest = step
            in_a_save += bool(list((run / "checkpoints").glob(".step-*")))
            lines = (run / "metrics.jsonl").read_bytes() if (run / "metrics.jsonl").exists() else b""
            while_writing_metrics += bool(lines) and not lines.endswith(b"\n")
        assert same(folder / "whole", run), f"{run} ended otherwise than the run that was never disturbed"
        ended += 1
        shutil.rmtree(run)
    return {
        "kills": killed,
        "runs": ended,
        "kills_in_a_save": in_a_save,
        "kills_in_a_line_of_metrics": while_writing_metrics,
        "equal": True,
    }


class Listening(Reporter):
    """Makes room on the disk once the run says that it waits."""

    def __init__(self, ballast: Path) -> None:
        self.ballast, self.notes = ballast, []

    def note(self, text: str) -> None:
        self.notes.append(text)
        if "disk is full" in text:
            threading.Timer(3.0, self.ballast.unlink).start()


def full_disk(recipe: Recipe, data: Path, whole: Path, disk: Path) -> dict[str, str | bool]:
    """Train on `disk`, which fills up: whether the run waited, and then ended like `whole`."""
    listener = Listening(disk / "ballast")
    size = sum(path.stat().st_size for path in listing.newest(whole).rglob("*"))
    free = shutil.disk_usage(disk).free
    # Leave room for two checkpoints and a half.
    listener.ballast.write_bytes(bytes(free - round(2.5 * size)))
    train(recipe, disk / "run", [data], reporter=listener, device="cpu")
    told = next((note for note in listener.notes if "disk is full" in note), "")
    assert told and same(whole, disk / "run")
    return {"told": told, "equal": True}


def main() -> None:
    """Run what was asked for, print and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--architecture", default="v2")
    parser.add_argument("--disk", action="store_true", help="fill a disk instead")
    parser.add_argument("--mounted", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--beside", action="store_true", help="write checkpoints beside the training (train.async_save)"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    recipe = load_recipe(
        f"nano-{given.architecture}",
        [*SMALL, f"train.steps={given.steps}", f"train.async_save={given.beside}".lower()],
    )
    with tempfile.TemporaryDirectory() as scratch:
        if given.disk and given.mounted is None:
            again = f"{sys.executable} {' '.join(sys.argv)} --mounted {scratch}"
            mount = f"mount -t tmpfs -o size=64m tmpfs {scratch} && exec {again}"
            raise SystemExit(subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode)
        if given.disk:
            torch.set_num_threads(1)
            train(recipe, Path(scratch) / "whole", [given.data], device="cpu")
            found = full_disk(recipe, given.data, Path(scratch) / "whole", given.mounted)
        else:
            found = kill_again_and_again(recipe, given.data, Path(scratch), given.kills)
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(
            json.dumps({"command": " ".join(["python", *sys.argv]), **found}, indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
