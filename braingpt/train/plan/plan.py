"""What a run will take, before it begins: parameters, arithmetic, memory by part, time, tokens, disk.

Read off the model itself, on the meta device; activations and time are tried on a layer or two
(`step_cost.measure_step_cost`), where that is asked for.

Memory is what is alive at once at the peak: weights, the optimizer's moments, and gradients beside the
activations of one micro-batch. With a single micro-batch a step gradients come into being as activations go,
so that only the larger of the two counts. Where the model grows, memory is that of the last stage, time and
arithmetic those of all stages together.

Of several processes all figures of memory are one's. Where weights are spread over them (`train.parallel:
fsdp`) a process holds its share of weights, gradients and moments, and beside them what is whole for a while
(`gathered_bytes`). With `train.offload` the shares rest on the host.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from braingpt.device.device import autocast_dtype, matmul_flops
from braingpt.device.free_memory import free_memory
from braingpt.model.growth_stages import stage_config
from braingpt.optim.adamw8bit import BLOCK, in_8_bits, quantised
from braingpt.optim.optimizer import orthogonalises, trainable
from braingpt.recipes import Recipe
from braingpt.train.plan.step_cost import StepCost, measure_step_cost
from braingpt.utils.formatting import byte_size, planned_duration, short_count

# share of the free memory that is planned with
ROOM = 0.9
# What a process on a CPU takes beside tensors: interpreter, torch and libraries; and the C library's heap,
# which holds tensors of many sizes with holes between them: 1.36 to 1.44 times the most that are alive
# (docs/results/plan.md).
PROCESS, HEAP = 460e6, 1.4
# floating-point operations of a run for which its duration is tried beforehand
LONG = 1e15
# a backward pass computes two products for each of the forward pass
BACKWARD = 2


@dataclass(frozen=True)
class Plan:
    """Counts, bytes and floating-point operations. `data_tokens` is None when the data are not prepared."""

    name: str
    parameters_total: int
    parameters_active: int
    # forward, averaged over a window
    flops_per_token: float
    # forward and backward, over the whole run, each stage of growth by its own layers
    training_flops: float
    # buffers included; on the device
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    autocast_bytes: int
    average_bytes: int
    # weights and gradients that are whole while they are computed with, where they are spread
    gathered_bytes: int
    # weights, gradients and moments that rest in the host's memory
    host_bytes: int
    micro_batch: int
    steps: int
    context: int
    tokens_per_step: int
    tokens: int
    data_tokens: int | None
    checkpoint_bytes: int
    # all checkpoints that are kept, and the one being written
    disk_bytes: int
    # layers and steps of each stage of growth; a single one without
    stages: tuple[tuple[int, int], ...]
    # passes over each language's windows, as the mixture draws them
    epochs_by_language: dict[str, float] | None = None
    # of a micro-batch, logits included; None where nothing was tried
    activations_bytes: int | None = None
    # the mean of all steps, of shallower stages too
    step_seconds: float | None = None

    @property
    def memory_bytes(self) -> int:
        """All parts on the device together, activations excluded."""
        resting = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.average_bytes
        return resting + self.autocast_bytes + self.gathered_bytes

    @property
    def peak_bytes(self) -> int | None:
        """The most that is held at once; None where activations were not tried."""
        if self.activations_bytes is None:
            return None
        single = self.micro_batch * self.context == self.tokens_per_step and not self.gathered_bytes
        passing = (
            max(self.gradients_bytes, self.activations_bytes)
            if single
            else self.gradients_bytes + self.activations_bytes
        )
        return self.weights_bytes + self.optimizer_bytes + self.average_bytes + self.gathered_bytes + passing

    @property
    def resident_bytes(self) -> int | None:
        """The whole process at its peak where it computes on a CPU; None where activations were not tried."""
        return (
            None if self.peak_bytes is None else round(PROCESS + HEAP * (self.peak_bytes + self.host_bytes))
        )

    @property
    def seconds(self) -> float | None:
        """The whole run's steps; None where nothing was tried."""
        return None if self.step_seconds is None else self.steps * self.step_seconds

    @property
    def epochs(self) -> float | None:
        """How often the run reads its training data, all languages together."""
        return self.tokens / self.data_tokens if self.data_tokens else None

    def tried(self, cost: StepCost, batch: int, micro_batch: int) -> "Plan":
        """The same with what was tried, at `micro_batch` windows at a time."""
        return replace(
            self,
            micro_batch=micro_batch,
            activations_bytes=cost.activations(micro_batch),
            step_seconds=cost.seconds(batch, micro_batch),
        )

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        names = ("memory_bytes", "peak_bytes", "resident_bytes", "epochs", "seconds")
        derived = {name: getattr(self, name) for name in names}
        return asdict(self) | derived

    def summary(self) -> str:
        """One line for the start of a run."""
        epochs = f", {self.epochs:.2g} epochs of {short_count(self.data_tokens)}" if self.data_tokens else ""
        if self.epochs_by_language and len(self.epochs_by_language) > 1:
            epochs += f" ({', '.join(f'{language} {count:.2g}' for language, count in self.epochs_by_language.items())})"
        memory = (
            f"{byte_size(self.memory_bytes)} before activations"
            if self.peak_bytes is None
            else f"{byte_size(self.peak_bytes)} at the peak"
        )
        memory += f" and {byte_size(self.host_bytes)} on the host" if self.host_bytes else ""
        time = "" if self.seconds is None else f", about {planned_duration(self.seconds)}"
        return (
            f"{self.name}: {short_count(self.parameters_total)} parameters, {short_count(self.parameters_active)} active; "
            f"{self.steps:,} steps of {self.tokens_per_step:,} tokens = {short_count(self.tokens)}{epochs}; "
            f"{memory}, {byte_size(self.checkpoint_bytes)} a checkpoint{time}"
        )


def build_plan(
    recipe: Recipe,
    data_tokens: int | None,
    autocast: bool = False,
    epochs_by_language: dict[str, float] | None = None,
    processes: int = 1,
) -> Plan:
    """The plan of training `recipe` on `data_tokens` tokens with so many processes; no weight is allocated."""
    from braingpt.model.lm import build

    with torch.device("meta"):
        model = build(recipe)
    config = recipe.train
    spread = config.parallel == "fsdp"
    shares = processes if spread else 1
    state = sum(
        state_bytes(config.optimizer, name, parameter, shares) for name, parameter in trainable(model)
    )
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = sum(t.numel() * t.element_size() for t in model.buffers())
    stored = {id(t): t.numel() * t.element_size() for t in model.state_dict(keep_vars=True).values()}
    average = 4 * learning if config.average else 0
    # of parts, moments are stored in float32
    kept = "adamw" if spread and config.optimizer == "adamw8bit" else config.optimizer
    checkpoint = (
        sum(stored.values())
        + average
        + sum(state_bytes(kept, name, parameter) for name, parameter in trainable(model))
    )
    blocks = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
    weights, gradients = 4 * sum(p.numel() for p in model.parameters()) // shares, 4 * learning // shares
    here = 0 if config.offload else 1
    # where weights come and go, so do their copies
    cast = autocast and not spread
    tokens_per_step = config.batch * config.context
    flops = model.flops_per_token(config.context)
    stage_flops = [
        (_flops_with(recipe, stage.layers, flops), stage.end - stage.begin) for stage in recipe.growth_stages
    ]
    return Plan(
        name=recipe.name,
        parameters_total=model.parameters_total(),
        parameters_active=model.parameters_active(),
        flops_per_token=flops,
        training_flops=(1 + BACKWARD) * tokens_per_step * sum(flops * steps for flops, steps in stage_flops),
        weights_bytes=here * weights + buffers,
        gradients_bytes=here * gradients,
        optimizer_bytes=here * state,
        autocast_bytes=2 * sum(p.numel() for p in model.parameters() if p.ndim >= 2) if cast else 0,
        average_bytes=here * average // shares,
        # Weights and gradients of what belongs to no block, all the time; of blocks two at a time, and
        # gradients once more as they are sent.
        gathered_bytes=4 * (2 * (learning - sum(blocks)) + 4 * max(blocks)) if spread else 0,
        host_bytes=(1 - here) * (weights + gradients + state + average // shares),
        micro_batch=config.micro_batch or config.batch,
        steps=config.steps,
        context=config.context,
        tokens_per_step=tokens_per_step,
        tokens=tokens_per_step * config.steps,
        data_tokens=data_tokens,
        checkpoint_bytes=checkpoint,
        disk_bytes=(config.keep + 3) * checkpoint,
        stages=tuple((stage.layers, stage.end - stage.begin) for stage in recipe.growth_stages),
        epochs_by_language=epochs_by_language,
    )


def _flops_with(recipe: Recipe, layers: int, whole: float) -> float:
    """Forward operations a token of the stage of growth with so many layers; `whole`: with all."""
    if layers == recipe.model.layers:
        return whole
    from braingpt.model.lm import build

    with torch.device("meta"):
        return build(stage_config(recipe.model, layers)).flops_per_token(recipe.train.context)


def plan_run(
    recipe: Recipe,
    device: torch.device,
    data_tokens: int | None,
    epochs_by_language: dict[str, float] | None = None,
    micro_batch: int | None = None,
    thorough: bool = False,
    held: int = 0,
    processes: int = 1,
    most: int | None = None,
) -> tuple[Plan, int]:
    """(plan, bytes of memory to be used) of a run on this device.

    Where the recipe leaves the micro-batch open it is the largest that fits.

    `micro_batch`: what a run to be resumed has; `held`: bytes of its model that lie there already; `most`:
        windows at a time that it may take. A few layers are tried when the micro-batch is open and memory may
        be short, when the run is long, and when `thorough`.
    """
    config, room = (
        recipe.train,
        round(ROOM * (free_memory(device) + held) / (HEAP if device.type == "cpu" else 1)),
    )
    # of each process
    rows = config.batch // processes
    micro_batch, most = config.micro_batch or micro_batch, min(rows, most or rows)
    plan = build_plan(
        recipe, data_tokens, autocast_dtype(config.dtype, device) is not None, epochs_by_language, processes
    )
    tight = micro_batch is None and (device.type == "cuda" or not small_beside(recipe, plan, room))
    if not (tight or thorough or plan.training_flops > LONG):
        return replace(plan, micro_batch=min(micro_batch or most, most)), room
    tried = measure_step_cost(recipe, device)
    # where device and host are one
    if device.type == "cpu":
        room = max(0, room - plan.host_bytes)
    plan = plan.tried(tried, rows, min(micro_batch or fitting(plan, tried, rows, room) or 1, most))
    # Differences of short timings may come to nothing on a busy machine; faster than its matrix products no
    # step is.
    least = (
        plan.training_flops
        / plan.steps
        / processes
        / matmul_flops(device, autocast_dtype(config.dtype, device) if device.type == "cuda" else None)
    )
    return replace(plan, step_seconds=max(plan.step_seconds, least)), room


def shortfall(plan: Plan, room: int, device: torch.device, held: int = 0) -> str | None:
    """Which memory the plan goes beyond, in words: the device's `room`, or the host's, in which `held` bytes
    lie already.
    """
    host = round(ROOM * (free_memory(torch.device("cpu")) + held))
    if plan.peak_bytes and plan.peak_bytes > room:
        return f"{byte_size(plan.peak_bytes)} at the peak, {byte_size(room)} of memory to be used"
    if device.type == "cuda" and plan.host_bytes > host:
        return f"{byte_size(plan.host_bytes)} on the host, {byte_size(host)} of its memory to be used"
    return None


def fitting(plan: Plan, cost: StepCost, batch: int, room: int) -> int | None:
    """The largest micro-batch whose peak stays within `room` bytes, a divisor of the batch; None where not
    even one window does.
    """
    divisors = (rows for rows in range(batch, 0, -1) if batch % rows == 0)
    return next((rows for rows in divisors if plan.tried(cost, batch, rows).peak_bytes <= room), None)


def state_bytes(optimizer: str, name: str, parameter: torch.Tensor, shares: int = 1) -> int:
    """Bytes that `optimizer` keeps of a process's share of the parameter called `name`."""
    count = -(-parameter.numel() // shares)
    if optimizer == "muon" and orthogonalises(name, parameter):
        return 4 * count
    if optimizer == "adamw8bit" and in_8_bits(name) and quantised(count):
        return 2 * (count + 4 * count // BLOCK)
    return 8 * count


def small_beside(recipe: Recipe, plan: Plan, room: int) -> bool:
    """Whether the whole batch fits into a quarter of `room` by a generous count, so that nothing need be
    tried.
    """
    model, config = recipe.model, recipe.train
    columns = getattr(model, "columns", None)
    neurons = (
        model.mlp
        if columns is None
        else columns.width
        * (columns.count if model.architecture == "v1" else columns.active + columns.shared)
    )
    # a token
    floats = model.layers * (40 * model.hidden + 8 * neurons) + 8 * model.hidden
    if model.architecture == "v1":
        floats += model.layers * 8 * model.heads * config.context
    return 4 * config.batch * config.context * floats + plan.memory_bytes < room / 4
