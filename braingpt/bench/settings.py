"""The settings of a comparison of architectures: values asked for, values of the recipes, and on a CPU values
cut down to minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from braingpt.bench.peers import check_peer
from braingpt.device.compile import check_compiler
from braingpt.device.device import pick_device
from braingpt.errors import UserError, did_you_mean
from braingpt.recipes import load_recipe, shipped

# Tokens of a step where no batch is given: about a second's work of a CPU.
CPU_TOKENS = 1024
CPU_STEPS = {"nano": 60, "tiny": 40, "small": 10}
GPU_STEPS = 200
CONTEXTS, BATCHES = (512, 2048), (1, 8)
# Tokens until compiled generation has all its forms: those of a token that attention chooses come late.
COMPILE_WARM_TOKENS = 48
FULL = {"contexts": (512, 2048, 8192, 32768), "seeds": 3}
# Settings that have an option of their own. Growth is planned in steps, which training for equal time
# does not have, and peers do not grow.
SET_BY_OPTIONS = (
    "train.steps",
    "train.context",
    "train.batch",
    "train.micro_batch",
    "train.seed",
    "train.compile",
    "train.growth",
    "data.folders",
)


@dataclass(frozen=True)
class BenchSettings:
    """The settings of a comparison; the contenders are `architectures`, then `peers`."""

    architectures: tuple[str, ...]
    size: str
    # Folders of prepared data.
    folders: tuple[str, ...]
    # Training: optimizer steps, tokens a window, windows a step.
    steps: int
    context: int
    batch: int
    threads: int
    device: str
    peers: tuple[str, ...] = ()
    # Minutes of training at equal time; None: as long as the slowest took for equal tokens; 0: none.
    minutes: float | None = None
    seeds: int = 1
    rounds: int = 5
    # Generation: tokens before, rows at once, new tokens.
    contexts: tuple[int, ...] = CONTEXTS
    batches: tuple[int, ...] = BATCHES
    new_tokens: int = 32
    # Validation windows of each language.
    windows: int = 32
    # Whether training and generation of all contenders are compiled.
    compile: bool = False
    # Overrides of the recipes' train and data settings, for all contenders.
    changes: tuple[str, ...] = ()

    @property
    def warm_tokens(self) -> int:
        """Tokens generated before anything is timed."""
        return max(self.new_tokens, COMPILE_WARM_TOKENS) if self.compile else self.new_tokens

    @property
    def names(self) -> tuple[str, ...]:
        """All contenders."""
        return self.architectures + self.peers


def resolve_settings(
    architectures: Sequence[str],
    size: str = "nano",
    folders: Sequence[str] = (),
    *,
    steps: int | None = None,
    tokens: int | None = None,
    context: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    **others: Any,
) -> BenchSettings:
    """Complete and check settings.

    Args:
        architectures: Names of our recipes, such as v1, v2 and dense.
        size: Size of the recipes.
        folders: Prepared data; empty: the recipe's.
        steps: Optimizer steps.
        tokens: Instead of `steps`: as many steps as reach them.
        context: Tokens a window; None: the recipe's.
        batch: Windows a step; None: the recipe's, on a CPU cut down to a second.
        threads: Threads of a CPU; None: torch's.
        device: Device; None: the best one available.
        **others: Further fields of `BenchSettings`.

    Raises:
        UserError: A value is unknown, or two values exclude each other.
    """
    _check_names(architectures, size, others.get("peers", ()))
    place = pick_device(device)
    changes = others.get("changes", ())
    _check_changes(changes)
    recipe = load_recipe(f"{size}-{architectures[0]}", list(changes))
    context = context or recipe.train.context
    gpu = place.type == "cuda"
    batch = batch or (
        recipe.train.micro_batch or recipe.train.batch
        if gpu
        else max(1, min(recipe.train.batch, CPU_TOKENS // context))
    )
    if steps is not None and tokens:
        raise UserError("--steps and --tokens exclude each other; give one of them")
    if steps is None:
        steps = -(-tokens // (batch * context)) if tokens else GPU_STEPS if gpu else CPU_STEPS.get(size, 5)
    if steps < 2:
        asked = f"--tokens {tokens}" if tokens else f"--steps {steps}"
        raise UserError(f"{asked} gives fewer than 2 steps; one is needed to warm up and one to measure")
    if others.get("compile"):
        check_compiler(place, "measure")
    folders = tuple(map(str, folders or recipe.data.folders))
    return BenchSettings(
        tuple(architectures),
        size,
        folders,
        steps,
        context,
        batch,
        threads or torch.get_num_threads(),
        str(place),
        **others,
    )


def _check_changes(changes: Sequence[str]) -> None:
    for change in changes:
        if not change.startswith(("train.", "data.")) or change.split("=")[0] in SET_BY_OPTIONS:
            raise UserError(
                f"--set {change}: give a train or data setting that has no option of its own, "
                "like train.optimizer=muon"
            )


def _check_names(architectures: Sequence[str], size: str, peers: Sequence[str]) -> None:
    names = {name.partition("-")[2] for name in shipped() if name.partition("-")[0] == size}
    sizes = {name.partition("-")[0] for name in shipped() if name.endswith("-dense")}
    if size not in sizes:
        raise UserError(f"there are no recipes of size '{size}'{did_you_mean(size, sizes)}")
    if wrong := next((name for name in architectures if name not in names), None):
        raise UserError(f"unknown architecture '{wrong}' of size {size}{did_you_mean(wrong, names)}")
    if not architectures or len({*architectures, *peers}) < len(architectures) + len(peers):
        raise UserError("name one or more different architectures, like: braingpt bench v1 v2 dense")
    for peer in peers:
        check_peer(peer)
