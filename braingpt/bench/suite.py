"""Speed, memory, stability and quality of several architectures, side by side in one run.

Rounds are interleaved - A B C, A B C, ... - so that a machine that grows slower meanwhile is slower for all; medians and the spread from
the slowest to the fastest round are kept. Every contender is trained on the same batches of real shards for the same number of steps, so
the matching is: equal tokens, and equal total parameters as far as the recipes are equal.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from braingpt.bench.contender import Contender, bench_recipe, spikes
from braingpt.bench.machine import machine
from braingpt.bench.memory import training_memory
from braingpt.compiling import check_compiler, compile_steps
from braingpt.errors import UserError, nearest
from braingpt.recipes import Recipe, load_recipe, shipped
from braingpt.train.setup import autocast_dtype, pick_device, settle_cpu

ARCHITECTURES = ("dense", "v1", "v2")
CPU_TOKENS = 2048  # a step, where nobody named a batch: what a processor does in seconds
CPU_STEPS = {"nano": 100, "tiny": 40, "small": 10}
GPU_STEPS = 200
Progress = Callable[[float, str], None]  # share done, what is being done


@dataclass(frozen=True)
class Settings:
    """What is measured. Tokens, steps and rounds; `folders` are prepared data."""

    architectures: tuple[str, ...]
    size: str
    folders: tuple[str, ...]
    steps: int
    context: int
    batch: int
    threads: int
    device: str
    rounds: int = 5
    prompt_tokens: int = 256
    new_tokens: int = 64
    windows: int = 32  # of validation, a language
    compile: bool = False  # the steps of generation, those of all architectures


@dataclass
class Series:
    """One figure of every round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """Median, extremes and rounds."""
        return {"median": self.median, "min": min(self.rounds), "max": max(self.rounds), "rounds": self.rounds}


@dataclass
class Figures:
    """One architecture's results. Bytes, tokens per second, seconds, bits per byte of validation text."""

    parameters_total: int
    parameters_active: int
    flops_per_token: float  # forward, averaged over the training context
    training_memory_bytes: int
    state_bytes: int = 0  # one sequence of prompt and new tokens, counted from the state's tensors
    training_tokens_per_second: Series = field(default_factory=Series)
    generation_tokens_per_second: Series = field(default_factory=Series)
    first_token_seconds: Series = field(default_factory=Series)
    train_losses: list[float] = field(default_factory=list)
    loss_spikes: int = 0
    validation: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        series = ("training_tokens_per_second", "generation_tokens_per_second", "first_token_seconds")
        losses = [loss if loss == loss else None for loss in self.train_losses]  # NaN is no JSON
        return {**asdict(self), "train_losses": losses, **{name: getattr(self, name).as_dict() for name in series}}


def settle(
    architectures: Sequence[str],
    size: str = "nano",
    folders: Sequence[str] = (),
    *,
    steps: int | None = None,
    context: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    **others: Any,
) -> Settings:
    """Settings, with what was left out taken from the size's recipe and on a CPU cut down to minutes. UserError if they do not fit."""
    wrong = next((name for name in architectures if name not in ARCHITECTURES), None)
    if wrong:
        raise UserError(f"unknown architecture '{wrong}'{nearest(wrong, ARCHITECTURES)}")
    if not architectures or len(set(architectures)) < len(architectures):
        raise UserError("name one or more different architectures, like: braingpt bench v1 v2 dense")
    missing = next((name for name in architectures if f"{size}-{name}" not in shipped()), None)
    if missing:
        sizes = {name.rpartition("-")[0] for name in shipped() if name.endswith(f"-{missing}")}
        raise UserError(f"there is no recipe {size}-{missing}{nearest(size, sizes)}")
    place = pick_device(device)
    recipe = load_recipe(f"{size}-{architectures[0]}")
    context = context or recipe.train.context
    gpu = place.type == "cuda"
    batch = batch or (recipe.train.micro_batch or recipe.train.batch if gpu else max(1, min(recipe.train.batch, CPU_TOKENS // context)))
    steps = steps or (GPU_STEPS if gpu else CPU_STEPS.get(size, 5))
    if steps < 2:
        raise UserError(f"--steps {steps}: it takes at least 2, one to warm up and one to measure")
    if others.get("compile"):
        check_compiler(place, "measure")
    folders = tuple(map(str, folders or recipe.data.folders))
    return Settings(tuple(architectures), size, folders, steps, context, batch, threads or torch.get_num_threads(), str(place), **others)


def run_bench(settings: Settings, progress: Progress = lambda share, what: None) -> dict[str, Any]:
    """Measure; returns {"settings", "machine", "matching", "precision", "results": {architecture: figures}}, JSON-ready.

    Raises UserError where the data are not prepared (naming the command) or too short.
    """
    settle_cpu()
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            figures, precision = _run(settings, Path(scratch), progress)
        facts = machine()
    finally:
        torch.set_num_threads(before)
    return {
        "settings": asdict(settings),
        "machine": facts,
        "precision": precision,
        "matching": matching(settings, [f.parameters_total for f in figures.values()]),
        "results": {name: f.as_dict() for name, f in figures.items()},
    }


def matching(settings: Settings, totals: Sequence[int]) -> dict[str, Any]:
    """What is equal between the contenders, in numbers and in words."""
    spread = max(totals) / min(totals) - 1
    tokens = settings.steps * settings.batch * settings.context
    same = f"equal total parameters (within {100 * spread:.1f} %)" if spread <= 0.02 else f"total parameters differ by {100 * spread:.0f} %"
    words = f"equal tokens ({tokens:,}, the same batches), {same}"
    return {"tokens": tokens, "parameters_spread": spread, "equal_parameters": spread <= 0.02, "words": words}


def _run(settings: Settings, scratch: Path, progress: Progress) -> tuple[dict[str, Figures], str]:
    device = torch.device(settings.device)
    recipes = {name: _recipe(settings, name) for name in settings.architectures}
    clock = _Clock(settings, progress)
    # Before the memory is measured, so that data which are not there are told at once.
    contenders = {name: Contender(recipe, scratch / name, device) for name, recipe in recipes.items()}
    figures = {}
    for name, contender in contenders.items():
        clock.say(f"memory of {name}")
        model, recipe = contender.model, recipes[name]
        memory = training_memory(recipe, settings.device, settings.threads)
        figures[name] = Figures(model.parameters_total(), model.parameters_active(), model.flops_per_token(settings.context), memory)
        clock.done("memory")
    _train(settings, contenders, figures, clock)
    _write(settings, contenders, figures, clock)
    for name, contender in contenders.items():
        clock.say(f"validation of {name}")
        figures[name].validation = contender.validate(settings.windows)
        clock.done("validation")
    dtype = autocast_dtype(next(iter(recipes.values())).train, device)
    return figures, "float32" if dtype is None else f"{dtype} products, float32 weights".removeprefix("torch.")


def _recipe(settings: Settings, architecture: str) -> Recipe:
    return bench_recipe(settings.size, architecture, settings.steps, settings.context, settings.batch, settings.folders)


def _train(settings: Settings, contenders: dict[str, Contender], figures: dict[str, Figures], clock: "_Clock") -> None:
    """All steps, the first part of them untimed: memory is taken and caches fill there."""
    for part, steps in enumerate(portions(settings.steps, settings.rounds)):
        for name, contender in contenders.items():
            clock.say(f"training {name}, step {len(contender.losses)}/{settings.steps}")
            speed = contender.train(steps)
            if part > 0:
                figures[name].training_tokens_per_second.rounds.append(speed)
            clock.done("step", steps)
    for name, contender in contenders.items():
        figures[name].train_losses = contender.losses
        figures[name].loss_spikes = spikes(contender.losses)


def portions(steps: int, rounds: int) -> list[int]:
    """Steps of the warm-up (about a tenth, at least one) and of each round, which differ by at most one; they sum to `steps`."""
    warm = max(1, steps // 10)
    rounds = min(rounds, steps - warm)
    share, rest = divmod(steps - warm, rounds)
    return [warm] + [share + (number < rest) for number in range(rounds)]


def _write(settings: Settings, contenders: dict[str, Contender], figures: dict[str, Figures], clock: "_Clock") -> None:
    """Generation at batch 1 after real prompts, another one each round; the first round is untimed."""
    if settings.compile:
        for contender in contenders.values():
            compile_steps(contender.model, contender.device)
    for number in range(settings.rounds + 1):
        for name, contender in contenders.items():
            clock.say(f"generation of {name}")
            prompt = contender.prompt(settings.prompt_tokens, number)
            first, speed, state = contender.write(prompt, settings.new_tokens)
            if number > 0:
                figures[name].first_token_seconds.rounds.append(first)
                figures[name].generation_tokens_per_second.rounds.append(speed)
                figures[name].state_bytes = state
            clock.done("generation")


class _Clock:
    """How much of the work is behind us, in training steps: other kinds of work are worth so many of them."""

    WORTH: dict[str, float] = {"step": 1, "memory": 6, "generation": 1, "validation": 3}  # noqa: RUF012

    def __init__(self, settings: Settings, progress: Progress) -> None:
        counts = {"step": settings.steps, "memory": 1, "generation": settings.rounds + 1, "validation": 1}
        self._whole = len(settings.architectures) * sum(self.WORTH[kind] * count for kind, count in counts.items())
        self._behind = 0.0
        self._progress = progress

    def say(self, what: str) -> None:
        self._progress(self._behind / self._whole, what)

    def done(self, kind: str, count: int = 1) -> None:
        self._behind += self.WORTH[kind] * count
