"""Peak memory of training one architecture, measured in a process of its own.

    # {"recipe": {...}, "device": "cpu", "threads": 2, "steps": 3, "peer": null}
    python -m braingpt.bench.peak_memory < request.json

Prints {"peak_bytes": ..., "held_before_bytes": ...}. On a GPU the peak is the allocator's own. On a CPU it is
the most resident memory of the process, less what the process held before the model was built. Before that, a
small model of the same architecture takes a step, so that libraries loaded on first use are not counted. What
remains is weights, gradients, optimizer state and activations.
"""

import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from braingpt.bench.contender import Contender
from braingpt.bench.machine import forget_peak, resident_bytes
from braingpt.bench.peers import Peer, build_peer
from braingpt.device.cpu import flush_denormals
from braingpt.device.device import pick_device
from braingpt.errors import Failure, UserError
from braingpt.recipes import Recipe, check_recipe, load_recipe
from braingpt.utils.child import module_command

# The optimizer's state exists from the first step on; the third step sees memory as it stays.
STEPS = 3


def training_memory(recipe: Recipe, device: str, threads: int, peer: dict[str, Any] | None = None) -> int:
    """Measure in a fresh process how many bytes training takes at its peak.

    Args:
        recipe: The recipe that is trained.
        device: Where it is trained.
        threads: Threads of a CPU.
        peer: {"name", "total", "positions"} of another library's model (`peers.build_peer`) that is trained
            instead of the recipe's.

    Raises:
        UserError: Training raises it.
        Failure: The process failed.
    """
    request = {
        "recipe": recipe.model_dump(mode="json"),
        "device": device,
        "threads": threads,
        "steps": min(STEPS, recipe.train.steps),
    }
    request["peer"] = peer
    command = module_command("braingpt.bench.peak_memory")
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode == 2:
        raise UserError(done.stderr.strip())
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [
            f"exit {done.returncode}; a process ended by -9 ran out of memory"
        ]
        raise Failure(f"measuring the memory of {recipe.name} failed: {reason[0]}")
    return json.loads(done.stdout)["peak_bytes"]


def measure(recipe: Recipe, device: str, steps: int, peer: dict[str, Any] | None = None) -> dict[str, int]:
    """Measure in this process, which should do nothing else; as `training_memory`."""
    # Training keeps freed memory too, in pieces of 64 MB; this measurement must not.
    flush_denormals()
    place = pick_device(device)
    with tempfile.TemporaryDirectory() as scratch:
        small = _small(recipe)
        Contender(small, Path(scratch) / "small", place, _peer(peer and {**peer, "total": 0}, small)).train(1)
        gc.collect()
        if place.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
            before = torch.cuda.memory_allocated(place)
        else:
            forget_peak()
            before = resident_bytes()
        contender = Contender(recipe, Path(scratch) / "real", place, _peer(peer, recipe))
        contender.train(steps)
        peak = torch.cuda.max_memory_allocated(place) if place.type == "cuda" else resident_bytes(peak=True)
    return {"peak_bytes": peak - before, "held_before_bytes": before}


def _peer(peer: dict[str, Any] | None, recipe: Recipe) -> Peer | None:
    """The peer's model in the recipe's width, of one layer where its total is 0."""
    return build_peer(peer["name"], recipe.model, peer["total"], peer["positions"]) if peer else None


def _small(recipe: Recipe) -> Recipe:
    """The same architecture and data, with the nano size's shape and a batch of one."""
    model = load_recipe(f"nano-{recipe.model.architecture}").model.model_copy(
        update={"vocab": recipe.model.vocab}
    )
    train = recipe.train.model_copy(
        update={"batch": 1, "micro_batch": None, "context": min(64, recipe.train.context)}
    )
    return recipe.model_copy(update={"model": model, "train": train})


def main(request: dict[str, Any]) -> int:
    """Answer one request; the exit code."""
    torch.set_num_threads(request["threads"])
    try:
        print(
            json.dumps(
                measure(check_recipe(request["recipe"]), request["device"], request["steps"], request["peer"])
            )
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
