"""The memory of a step's activations and the time of a step, measured before there is a run: on one or two
layers, extrapolated to all.

A model of one layer, and one of two layers for each kind of layer, in the recipe's own width, learn from two
small batches of random tokens. The cost of a further layer and a further window is that of each of the
recipe's layers and windows; embedding and head are in the one layer's figures. So a model of billions of
parameters is planned with the memory of two of its layers.

Windows are cut to 512 tokens where memory grows with tokens alone; `v1` keeps whole windows, as its scores
grow with their square. On a GPU the allocator's peak is read. On a CPU the bytes of all tensors alive are
followed, operation by operation. Adaptive depth is not counted: every token passes every layer.
"""

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from braingpt.device.device import autocast, autocast_dtype
from braingpt.model.lm import build
from braingpt.model.outline import layer_kinds, outline, with_layers
from braingpt.optim.optimizer import build_optimizer, is_table
from braingpt.optim.row_adam import gradient_values
from braingpt.recipes import Recipe
from braingpt.train.plan.activations import TRAINED_BYTES, generous_bytes
from braingpt.train.recompute import recompute_blocks
from braingpt.utils.formatting import byte_size, short_count

# Tokens of a window that is measured, at most.
LENGTH = 512
# Tokens measured, at least: a chunk of the cross-entropy, whose memory grows with the tokens up to there.
LEAST_TOKENS = {"cpu": 1024, "cuda": 4096}
# Floating-point operations that are measured at most, some ten seconds. They decide and not the time, so that
# a plan has the same figures on a busy machine.
MOST_MEASURED = {"cpu": 1e12, "cuda": 1e14}
# Tokens of the first pass, which loads and compiles what is used for the first time.
WARM_UP = 64


class Alive(TorchDispatchMode):
    """Follows the bytes of CPU tensors made inside the `with` and still alive.

    Attributes:
        now: Bytes alive.
        peak: The most bytes that were alive at once.
    """

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        """`known`: tensors made before, which do not count."""
        super().__init__()
        self.now = self.peak = 0
        self.followed = {tensor.untyped_storage()._cdata for tensor in known}
        # Kept alive, so that no new storage takes an old one's address.
        self.known = known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            # A sparse gradient has no storage: its values are those of another tensor.
            if (
                not isinstance(tensor, torch.Tensor)
                or tensor.layout != torch.strided
                or tensor.untyped_storage()._cdata in self.followed
            ):
                continue
            storage = tensor.untyped_storage()
            self.followed.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self.followed.discard(key)
        self.now -= size


@dataclass(frozen=True)
class StepCost:
    """The memory of a micro-batch beside weights, gradients and optimizer, and the time of a step's parts."""

    bytes_fixed: float
    bytes_per_row: float
    seconds_fixed: float
    seconds_per_row: float
    optimizer_seconds: float

    def activations(self, rows: int) -> int:
        """Bytes at the peak of a micro-batch of `rows` windows."""
        return max(0, round(self.bytes_fixed + self.bytes_per_row * rows))

    def seconds(self, batch: int, rows: int) -> float:
        """Seconds of a step of `batch` windows, `rows` at a time."""
        return batch / rows * (self.seconds_fixed + self.seconds_per_row * rows) + self.optimizer_seconds


def measure_step_cost(recipe: Recipe, device: torch.device) -> StepCost:
    """Measure the cost of a step on `device`; this takes some seconds, and the memory of two layers."""
    kinds = layer_kinds(recipe.model)
    first, further = kinds[0], list(dict.fromkeys(kinds[1:]))
    models = [
        _SmallModel(recipe, [first], device),
        *(_SmallModel(recipe, [first, kind], device) for kind in further),
    ]
    counts: list[float] = [kinds[1:].count(kind) for kind in further]
    mean_counts = _mean_counts(recipe, kinds, further)

    def all_layers(figures: list[float], counts: list[float]) -> float:
        one, *two = figures
        return one + sum(count * (more - one) for count, more in zip(counts, two, strict=True))

    length = _measured_length(recipe)
    for model in models:
        model.learn(1, min(length, WARM_UP))
    rows = -(-LEAST_TOKENS[device.type] // length)
    # Peak bytes and seconds of each model, over as few rows as possible and over twice as many.
    once, twice = ([model.measure(count, length) for model in models] for count in (rows, 2 * rows))
    if recipe.train.recompute:
        input_bytes = 4 * recipe.model.hidden * length * rows
        bytes_1 = _recomputed_peak(models, [peak for peak, _ in once], len(kinds), input_bytes)
        bytes_2 = _recomputed_peak(models, [peak for peak, _ in twice], len(kinds), 2 * input_bytes)
    else:
        bytes_1, bytes_2 = (all_layers([peak for peak, _ in passes], counts) for passes in (once, twice))
    seconds_1, seconds_2 = (
        all_layers([seconds for _, seconds in passes], mean_counts) for passes in (once, twice)
    )
    more_bytes, more_seconds = max(0.0, bytes_2 - bytes_1), max(0.0, seconds_2 - seconds_1)
    optimizer_seconds = max(0.0, all_layers([model.step() for model in models], mean_counts))
    # The models' memory goes before the run begins.
    models.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    scale = recipe.train.context / length / rows
    return StepCost(
        bytes_fixed=bytes_1 - more_bytes,
        bytes_per_row=scale * more_bytes,
        seconds_fixed=max(0.0, seconds_1 - more_seconds),
        seconds_per_row=scale * more_seconds,
        optimizer_seconds=optimizer_seconds,
    )


def why_not_measured(recipe: Recipe, device: torch.device, budget_bytes: int) -> str | None:
    """Why a few layers of a recipe cannot be measured here, in words; None where they can.

    Args:
        recipe: The recipe.
        device: Where to measure.
        budget_bytes: Memory that the few layers may take.
    """
    kinds = layer_kinds(recipe.model)
    samples = [[kinds[0]], *([kinds[0], kind] for kind in dict.fromkeys(kinds[1:]))]
    models = [with_layers(recipe.model, sample) for sample in samples]
    outlines = [outline(model) for model in models]
    length = _measured_length(recipe)
    rows = -(-LEAST_TOKENS[device.type] // length)
    weights = TRAINED_BYTES * sum(shape.parameters_total() for shape in outlines)
    needed = weights + 2 * rows * max(generous_bytes(model, length) for model in models)
    if needed > budget_bytes:
        return f"two layers alone take up to {byte_size(needed)}"
    # A warm-up, a pass and one twice as large, each forward and backward.
    tokens = min(length, WARM_UP) + 3 * rows * length
    flops = 3 * tokens * sum(shape.flops_per_token(length) for shape in outlines)
    if flops <= MOST_MEASURED[device.type]:
        return None
    return f"two layers take {short_count(flops)} floating-point operations"


def _measured_length(recipe: Recipe) -> int:
    """Tokens of a window that is measured."""
    whole_windows = recipe.model.architecture == "v1"
    return recipe.train.context if whole_windows else min(recipe.train.context, LENGTH)


def _mean_counts(recipe: Recipe, kinds: list[str], further: list[str]) -> list[float]:
    """Layers of each kind after the first layer, averaged over the steps of all stages of growth."""
    stages = [
        (kinds[1 : stage.layers], (stage.end - stage.begin) / recipe.train.steps)
        for stage in recipe.growth_stages
    ]
    return [sum(layers.count(kind) * share for layers, share in stages) for kind in further]


def _recomputed_peak(models: list["_SmallModel"], peaks: list[float], layers: int, input_bytes: int) -> float:
    """The peak of all layers where blocks are recomputed: that of the greediest block, and the float32 input
    of each further layer.

    Differences between models of one and two layers would not do, as the order of the layers decides which
    block is recomputed at the peak.
    """
    return max(
        peak + (layers - len(small.model.blocks)) * input_bytes
        for small, peak in zip(models, peaks, strict=True)
    )


class _SmallModel:
    """A model of a few layers that learns from random tokens."""

    def __init__(self, recipe: Recipe, kinds: list[str], device: torch.device) -> None:
        self.vocab, self.device = recipe.model.vocab, device
        self.dtype = autocast_dtype(recipe.train.dtype, device)
        self.model = build(with_layers(recipe.model, kinds)).to(device).train()
        if recipe.train.recompute:
            recompute_blocks(self.model)
        self.optimizer = build_optimizer(self.model, recipe.train)
        for name, parameter in self.model.named_parameters():
            # A table's gradient holds the rows looked up.
            parameter.grad = None if is_table(name) else torch.zeros_like(parameter)

    def learn(self, rows: int, length: int) -> None:
        """Run forward and backward on a batch of `rows` windows."""
        generator = torch.Generator().manual_seed(0)
        ids_BL = torch.randint(0, self.vocab, (rows, length), generator=generator).to(self.device)
        with autocast(self.device, self.dtype):
            loss = self.model(ids_BL, ids_BL).loss
        loss.backward()
        self._wait()

    def measure(self, rows: int, length: int) -> tuple[float, float]:
        """Peak bytes beside weights and gradients, and seconds, of a forward and backward pass."""
        for parameter in self.model.parameters():
            # Only dense gradients are there before a step.
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = None
        began = time.perf_counter()
        if self.device.type == "cpu":
            gradients = [parameter.grad for parameter in self.model.parameters()]
            known = [*self.model.parameters(), *gradients, *self.model.buffers()]
            with Alive([tensor for tensor in known if tensor is not None]) as alive:
                self.learn(rows, length)
            return alive.peak, time.perf_counter() - began
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.learn(rows, length)
        seconds = time.perf_counter() - began
        return torch.cuda.max_memory_allocated(self.device) - before, seconds

    def step(self) -> float:
        """Seconds of an optimizer step; the first step, which makes the moments, is not counted."""
        gradient_values(self.model.parameters())
        self.optimizer.step()
        self._wait()
        began = time.perf_counter()
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
