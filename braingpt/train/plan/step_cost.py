"""What a step's activations take and how long it lasts, before there is a run: tried on one or two layers,
extrapolated to all.

A model of one layer, and one of two for each kind of layer, in the recipe's own width, learn from two small
batches of random tokens. What a further layer and a further window add is what the recipe's layers and
windows will add; embedding and head are in the one layer's figures. So a model of billions is planned with
the memory of two of its layers. Windows are cut to 512 tokens where memory grows with tokens alone (not in
`v1`, whose scores grow with their square). On a GPU the allocator's peak is read; on a CPU the bytes of all
tensors alive are followed operation by operation. Adaptive depth is not counted: every token is taken to go
through every layer.
"""

import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from braingpt.device.device import autocast, autocast_dtype
from braingpt.model.config import DepthConfig, ModelConfig
from braingpt.optim.optimizer import build_optimizer
from braingpt.recipes import Recipe
from braingpt.train.recompute import recomputing

# tokens of a window tried
LENGTH = 512
# tokens tried: chunks of the cross-entropy, whose memory grows with the tokens up to there
LEAST = {"cpu": 1024, "cuda": 4096}


class Alive(TorchDispatchMode):
    """Follows the bytes of tensors made inside and still alive; `peak` is the most there were at once.

    Made for CPU tensors.
    """

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.followed = {tensor.untyped_storage()._cdata for tensor in known}
        # kept, so that no new storage takes their place
        self.known = known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            # A sparse gradient has no storage of its own: its values are those of another tensor.
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
    """What a micro-batch takes beside weights, gradients and optimizer, and how long it and an optimizer step
    last.
    """

    bytes_fixed: float
    bytes_per_row: float
    seconds_fixed: float
    seconds_per_row: float
    optimizer_seconds: float

    def activations(self, rows: int) -> int:
        """Bytes at the peak of a micro-batch of `rows` windows."""
        return max(0, round(self.bytes_fixed + self.bytes_per_row * rows))

    def seconds(self, batch: int, rows: int) -> float:
        """A step of `batch` windows, `rows` at a time."""
        return batch / rows * (self.seconds_fixed + self.seconds_per_row * rows) + self.optimizer_seconds


def measure_step_cost(recipe: Recipe, device: torch.device) -> StepCost:
    """Try it on `device`: some seconds, and the memory of two layers."""
    kinds = layer_kinds(recipe.model)
    first = kinds[0]
    length = recipe.train.context if recipe.model.architecture == "v1" else min(recipe.train.context, LENGTH)
    learners = [
        _Learner(recipe, [first], device),
        *(_Learner(recipe, [first, kind], device) for kind in dict.fromkeys(kinds[1:])),
    ]
    further = list(dict.fromkeys(kinds[1:]))
    counts = [kinds[1:].count(kind) for kind in further]
    spans = [
        (kinds[1 : stage.layers], (stage.end - stage.begin) / recipe.train.steps)
        for stage in recipe.growth_stages
    ]
    # over the steps of all stages
    mean_counts = [sum(there.count(kind) * share for there, share in spans) for kind in further]

    def all_layers(figure: Callable[["_Learner"], float], counts: list[float] = counts) -> float:
        one, *more = map(figure, learners)
        return one + sum(count * (two - one) for count, two in zip(counts, more, strict=True))

    for learner in learners:
        # what is loaded at first use is not counted
        learner.learn(1, min(length, 64))
    rows = -(-LEAST[device.type] // length)
    tried = [{learner: learner.tried(count, length) for learner in learners} for count in (rows, 2 * rows)]
    peaks = [{learner: here[learner][0] for learner in learners} for here in tried]
    if recipe.train.recompute:
        inputs = 4 * recipe.model.hidden * length * rows
        bytes_1, bytes_2 = (
            _with_inputs(here, len(kinds), size)
            for here, size in zip(peaks, (inputs, 2 * inputs), strict=True)
        )
    else:
        bytes_1, bytes_2 = (all_layers(here.__getitem__) for here in peaks)
    seconds_1, seconds_2 = (
        all_layers(lambda learner, here=here: here[learner][1], mean_counts) for here in tried
    )
    more_bytes, more_seconds = max(0.0, bytes_2 - bytes_1), max(0.0, seconds_2 - seconds_1)
    optimizer_seconds = max(0.0, all_layers(_Learner.step, mean_counts))
    for held in (learners, tried, peaks):
        held.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    scale = recipe.train.context / length / rows
    return StepCost(
        bytes_fixed=bytes_1 - more_bytes, bytes_per_row=scale * more_bytes,
        seconds_fixed=max(0.0, seconds_1 - more_seconds), seconds_per_row=scale * more_seconds,
        optimizer_seconds=optimizer_seconds,
    )  # fmt: skip


def _with_inputs(peaks: dict["_Learner", int], layers: int, inputs: int) -> int:
    """The peak of all layers where blocks are recomputed: what the greediest block takes, and the float32
    input of each further layer.

    Differences between models of one and two layers would not do: which block is recomputed at the peak
    depends on their order.
    """
    return max(peak + (layers - len(learner.model.blocks)) * inputs for learner, peak in peaks.items())


def layer_kinds(model: ModelConfig) -> list[str]:
    """The mixer of each layer."""
    if model.architecture != "v2":
        return [model.architecture] * model.layers
    return [
        "selective" if i in model.attention.layers else "memory" if i in model.memory.layers else "mamba"
        for i in range(model.layers)
    ]


def with_layers(model: ModelConfig, kinds: list[str]) -> ModelConfig:
    """The same model with these layers only, and without exits."""
    if model.architecture != "v2":
        return model.model_copy(update={"layers": len(kinds)})
    places = {
        kind: tuple(i for i, here in enumerate(kinds) if here == kind) for kind in ("selective", "memory")
    }
    return model.model_copy(
        update={
            "layers": len(kinds), "depth": DepthConfig(),
            "attention": model.attention.model_copy(update={"layers": places["selective"]}),
            "memory": model.memory.model_copy(update={"layers": places["memory"]}),
        }
    )  # fmt: skip


class _Learner:
    """A model of a few layers that learns from random tokens."""

    def __init__(self, recipe: Recipe, kinds: list[str], device: torch.device) -> None:
        from braingpt.model.lm import build

        self.vocab, self.device, self.dtype = (
            recipe.model.vocab,
            device,
            autocast_dtype(recipe.train.dtype, device),
        )
        self.model = build(with_layers(recipe.model, kinds)).to(device).train()
        if recipe.train.recompute:
            recomputing(self.model)
        self.optimizer = build_optimizer(self.model, recipe.train)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def learn(self, rows: int, length: int) -> None:
        """Forward and backward."""
        ids_BL = torch.randint(0, self.vocab, (rows, length), generator=torch.Generator().manual_seed(0)).to(
            self.device
        )
        with autocast(self.device, self.dtype):
            loss = self.model(ids_BL, ids_BL).loss
        loss.backward()
        self._finish()

    def tried(self, rows: int, length: int) -> tuple[int, float]:
        """(peak bytes beside weights and gradients, seconds) of a forward and backward pass."""
        held = [*self.model.parameters(), *(p.grad for p in self.model.parameters()), *self.model.buffers()]
        alive = Alive(held) if self.device.type == "cpu" else nullcontext()
        before = 0 if self.device.type == "cpu" else torch.cuda.memory_allocated(self.device)
        if self.device.type != "cpu":
            torch.cuda.reset_peak_memory_stats(self.device)
        began = time.perf_counter()
        with alive:
            self.learn(rows, length)
        seconds = time.perf_counter() - began
        return (
            alive.peak if self.device.type == "cpu" else torch.cuda.max_memory_allocated(self.device) - before
        ), seconds

    def step(self) -> float:
        """Seconds of an optimizer step; the first, which makes the state, is not counted."""
        self.optimizer.step()
        self._finish()
        began = time.perf_counter()
        self.optimizer.step()
        self._finish()
        return time.perf_counter() - began

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
