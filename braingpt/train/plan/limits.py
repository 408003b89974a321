"""Whether a run can fit at all: by arithmetic, before any tensor is made.

The count is a lower bound: weights, gradients and moments as they are, and of the activations what every
architecture keeps for the backward pass. A run is refused where even that is more than the memory there is.
What the message offers instead is counted generously (`activations.py`), so that it fits.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from braingpt.device.device import autocast_dtype
from braingpt.device.free_memory import Available, available_memory
from braingpt.errors import UserError
from braingpt.model.outline import outline
from braingpt.recipes import Recipe, load_recipe, shipped
from braingpt.train.plan.activations import TRAINED_BYTES, generous_bytes
from braingpt.train.plan.plan import build_plan
from braingpt.utils.formatting import byte_size

# Numbers, a token, layer and unit of width, that training keeps for the backward pass, at least: the residual
# stream and what mixer and MLP read and write. With recomputed blocks only the input is kept.
LEAST_NUMBERS, LEAST_RECOMPUTED = 10, 1
# Bytes of a token's id and target on their way to the device, as two int64.
BYTES_PER_TOKEN = 16


@dataclass(frozen=True)
class Need:
    """Bytes that a run holds at once, at least.

    Attributes:
        resting: Weights, gradients, moments and averages on the device.
        per_window: Activations of each window of a micro-batch.
        batch: The ids of a step, in the host's memory.
        host: Weights, gradients and moments in the host's memory.
    """

    resting: int
    gradients: int
    per_window: float
    windows: int
    batch: int
    host: int

    @property
    def device_bytes(self) -> int:
        """The peak on the device: gradients come into being as the activations of a single micro-batch go."""
        return round(self.resting - self.gradients + max(self.gradients, self.per_window * self.windows))


def least_need(recipe: Recipe, device: torch.device, processes: int, micro_batch: int) -> Need:
    """What a process of the run needs at least, with `micro_batch` windows at a time."""
    config, model = recipe.train, recipe.model
    autocast = autocast_dtype(config.dtype, device) is not None
    plan = build_plan(recipe, None, autocast, processes=processes)
    numbers = LEAST_RECOMPUTED if config.recompute else LEAST_NUMBERS
    arriving = sum(outline(model).arriving())
    return Need(
        resting=plan.memory_bytes,
        gradients=plan.gradients_bytes,
        per_window=(2 if autocast else 4) * config.context * numbers * model.hidden * arriving,
        windows=micro_batch,
        batch=BYTES_PER_TOKEN * config.context * (config.batch // processes),
        host=plan.host_bytes,
    )


def fitting(recipe: Recipe, device: torch.device, processes: int = 1) -> Recipe:
    """The recipe, unless its run cannot fit into memory.

    Args:
        recipe: The recipe to train.
        device: Where to train.
        processes: Processes that train together.

    Raises:
        UserError: Not even the least it needs fits; the message says what is needed, what is available, and
            what would fit.
    """
    if reason := why_too_large(recipe, device, processes):
        raise UserError(reason)
    return recipe


def why_too_large(recipe: Recipe, device: torch.device, processes: int = 1) -> str | None:
    """What `fitting` says; None for a run that may fit."""
    rows = max(1, recipe.train.batch // processes)
    windows = min(recipe.train.micro_batch or 1, rows)
    need = least_need(recipe, device, processes, windows)
    host = available_memory(torch.device("cpu"))
    # Processes of one machine share its memory.
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if processes > 1 else 1
    host = host._replace(bytes=host.bytes // max(1, sharing))
    on_cpu = device.type == "cpu"
    room = host if on_cpu else available_memory(device)
    needed = need.device_bytes + (need.host + need.batch if on_cpu else 0)
    if needed > room.bytes:
        return _in_words(recipe, need, needed, room, rows)
    if not on_cpu and need.host + need.batch > host.bytes:
        return (
            f"the run needs at least {byte_size(need.host + need.batch)} of the host's memory, "
            f"{byte_size(host.bytes)} are available ({host.source}); use more processes or a smaller model"
        )
    return None


def _in_words(recipe: Recipe, need: Need, needed: int, room: Available, rows: int) -> str:
    """The message for a run that does not fit."""
    single = replace(need, windows=1)
    lies = f"{byte_size(room.bytes)} are available ({room.source})"
    config, model = recipe.train, recipe.model
    # What is left for activations where one window at a time fits beside the weights.
    spare = room.bytes - need.resting - need.host
    if spare < need.batch and spare > 0:
        batch = max(1, int(config.batch * spare / max(1, need.batch) / 2))
        return (
            f"a step of {config.batch:,} windows of {config.context:,} tokens needs "
            f"{byte_size(need.batch)} for its tokens alone, {lies}; train.batch={batch} would fit"
        )
    if need.windows > 1 and single.device_bytes + need.batch + need.host <= room.bytes:
        window = generous_bytes(model, config.context)
        fits = max(1, min(rows, int((spare - need.batch) / window)))
        fits = next(count for count in range(fits, 0, -1) if rows % count == 0)
        return (
            f"micro-batches of {need.windows:,} windows need at least {byte_size(needed)} of memory, {lies}; "
            f"train.micro_batch={fits} would fit, or train.micro_batch=null, which measures what fits"
        )
    if spare > 0:
        tokens = (
            int(config.context * (spare - need.batch) / (3 * need.per_window)) if spare > need.batch else 0
        )
        tokens = 1 << tokens.bit_length() - 1 if tokens > 1 else 2
        return (
            f"one window of {config.context:,} tokens needs at least {byte_size(needed)} of memory, {lies}; "
            f"train.context={tokens} would fit"
            + ("" if config.recompute else ", or try train.recompute=true")
        )
    words = f"weights, gradients and optimizer need {byte_size(need.resting + need.host)} of memory, {lies}"
    return f"{words}; {_smaller_model(recipe, room.bytes)}"


def _smaller_model(recipe: Recipe, room: int) -> str:
    """What of a model would fit: fewer layers, or else a shipped recipe."""
    model, context = recipe.model, recipe.train.context
    shape = outline(model)
    largest = max(shape.block_sizes())
    shell = TRAINED_BYTES * shape.shell_size()
    layer = TRAINED_BYTES * largest + generous_bytes(model, context, 1)
    layers = int((room - shell) / layer)
    if layers >= 1:
        return f"at most {min(layers, model.layers - 1):,} layer{'s' * (layers > 1)} of this width would fit"
    name = next((name for name in _by_size(model.architecture) if _fits(name, room)), None)
    known = f"; the largest shipped recipe that fits is {name}" if name else ""
    return f"not even one layer of this width fits: use a smaller model.hidden or model.vocab{known}"


def _by_size(architecture: str) -> Iterator[str]:
    """The shipped recipes of an architecture, the largest first."""
    sizes = ("xlarge", "large", "medium", "small", "tiny", "nano")
    yield from (name for size in sizes if (name := f"{size}-{architecture}") in shipped())


def _fits(name: str, room: int) -> bool:
    recipe = load_recipe(name)
    window = generous_bytes(recipe.model, recipe.train.context)
    return TRAINED_BYTES * outline(recipe.model).parameters_total() + window <= room
