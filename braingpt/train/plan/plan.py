"""The cost of a run, before it begins: parameters, arithmetic, memory by part, time, tokens, disk.

The counts come from the model itself, on the meta device. Activations and time are measured on a layer or
two (`step_cost.measure_step_cost`), where that is asked for.

Memory is what is alive at once at the peak: weights, the optimizer's moments, and gradients beside the
activations of one micro-batch. With a single micro-batch a step, gradients come into being as activations go,
so that only the larger of the two counts. Where the model grows, memory is that of the last stage, while time
and arithmetic are those of all stages together.

All memory is that of one process. Where weights are sharded (`train.parallel: fsdp`), a process holds its
share of weights, gradients and moments, and beside them the blocks that are gathered for a while
(`gathered_bytes`). With `train.offload` the shares are on the host.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from braingpt.device.device import autocast_dtype, matmul_flops
from braingpt.device.free_memory import free_memory
from braingpt.model.growth_stages import stage_config
from braingpt.model.outline import outline
from braingpt.optim.adamw8bit import BLOCK, in_8_bits, is_quantised
from braingpt.optim.optimizer import is_table, orthogonalises
from braingpt.recipes import Recipe
from braingpt.train.plan.activations import generous_bytes, spared_gradient_bytes
from braingpt.train.plan.step_cost import StepCost, measure_step_cost, why_not_measured
from braingpt.utils.formatting import byte_size, planned_duration, short_count

# Share of the free memory that a plan uses.
USED_SHARE = 0.9
# Bytes of a process on a CPU beside its tensors: interpreter, torch and libraries.
PROCESS_BYTES = 460e6
# The C library's heap holds tensors of many sizes with holes between them: 1.36 to 1.44 times the most that
# are alive (docs/results/plan.md).
HEAP = 1.4
# Floating-point operations of a run whose duration is measured beforehand.
LONG = 1e15
# Products of a backward pass for each of the forward pass.
BACKWARD = 2
# Bytes of a float32 number.
FLOAT = 4
# Checkpoints on the disk beside the newest ones: the best, the last good one, and the one being written.
MORE_CHECKPOINTS = 3


@dataclass(frozen=True)
class Plan:
    """Counts, bytes and floating-point operations of a run.

    Attributes:
        flops_per_token: Forward operations, averaged over a window.
        training_flops: Operations of the whole run, forward and backward, each stage of growth by its layers.
        weights_bytes: Weights and buffers on the device.
        autocast_bytes: Copies of the matrices in bfloat16.
        average_bytes: The average of the weights.
        gathered_bytes: Sharded weights and gradients that are gathered while they are computed with.
        host_bytes: Weights, gradients and moments in the host's memory.
        micro_batch: Windows at a time.
        data_tokens: Tokens in the data; None where they are not prepared.
        disk_bytes: All checkpoints that are kept, and the one being written.
        stages: Layers and steps of each stage of growth; a single one without growth.
        epochs_by_language: Passes over each language's windows, as the mixture draws them.
        activations_bytes: Activations of a micro-batch, logits included; None where they were not measured.
        step_seconds: The mean of all steps, those of shallower stages too; None where it was not measured.
    """

    name: str
    parameters_total: int
    parameters_active: int
    flops_per_token: float
    training_flops: float
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    autocast_bytes: int
    average_bytes: int
    gathered_bytes: int
    host_bytes: int
    micro_batch: int
    steps: int
    context: int
    tokens_per_step: int
    tokens: int
    data_tokens: int | None
    checkpoint_bytes: int
    disk_bytes: int
    stages: tuple[tuple[int, int], ...]
    epochs_by_language: dict[str, float] | None = None
    activations_bytes: int | None = None
    step_seconds: float | None = None

    @property
    def memory_bytes(self) -> int:
        """All parts on the device together, activations excluded."""
        resting = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.average_bytes
        return resting + self.autocast_bytes + self.gathered_bytes

    @property
    def peak_bytes(self) -> int | None:
        """The most bytes held at once; None where activations were not measured."""
        if self.activations_bytes is None:
            return None
        resting = self.weights_bytes + self.optimizer_bytes + self.average_bytes + self.gathered_bytes
        single = self.micro_batch * self.context == self.tokens_per_step and not self.gathered_bytes
        if single:
            return resting + max(self.gradients_bytes, self.activations_bytes)
        return resting + self.gradients_bytes + self.activations_bytes

    @property
    def resident_bytes(self) -> int | None:
        """The whole process at its peak on a CPU; None where activations were not measured."""
        if self.peak_bytes is None:
            return None
        return round(PROCESS_BYTES + HEAP * (self.peak_bytes + self.host_bytes))

    @property
    def seconds(self) -> float | None:
        """All steps of the run; None where they were not measured."""
        return None if self.step_seconds is None else self.steps * self.step_seconds

    @property
    def epochs(self) -> float | None:
        """How often the run reads its training data, all languages together."""
        return self.tokens / self.data_tokens if self.data_tokens else None

    def with_cost(self, cost: StepCost, batch: int, micro_batch: int) -> "Plan":
        """The same plan with what was measured, at `micro_batch` of `batch` windows at a time."""
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
        total, active = short_count(self.parameters_total), short_count(self.parameters_active)
        tokens = f"{self.steps:,} steps of {self.tokens_per_step:,} tokens = {short_count(self.tokens)}"
        epochs = f", {self.epochs:.2g} epochs of {short_count(self.data_tokens)}" if self.data_tokens else ""
        if self.epochs_by_language and len(self.epochs_by_language) > 1:
            counts = (f"{language} {count:.2g}" for language, count in self.epochs_by_language.items())
            epochs += f" ({', '.join(counts)})"
        if self.peak_bytes is None:
            memory = f"{byte_size(self.memory_bytes)} before activations"
        else:
            memory = f"{byte_size(self.peak_bytes)} at the peak"
        if self.host_bytes:
            memory += f" and {byte_size(self.host_bytes)} on the host"
        memory += f", {byte_size(self.checkpoint_bytes)} a checkpoint"
        time = "" if self.seconds is None else f", about {planned_duration(self.seconds)}"
        return f"{self.name}: {total} parameters, {active} active; {tokens}{epochs}; {memory}{time}"


def build_plan(
    recipe: Recipe,
    data_tokens: int | None,
    autocast: bool = False,
    epochs_by_language: dict[str, float] | None = None,
    processes: int = 1,
) -> Plan:
    """Plan a run without allocating a weight.

    Args:
        recipe: The recipe to train.
        data_tokens: Tokens in the data, where they are prepared.
        autocast: Whether products run in bfloat16.
        epochs_by_language: Passes over each language's windows.
        processes: Processes that train together.
    """
    model, config = outline(recipe.model), recipe.train
    sharded = config.parallel == "fsdp"
    shares = processes if sharded else 1
    learned = list(model.learned())
    moments = sum(n * moment_bytes(config.optimizer, name, p, shares) for name, p, n in learned)
    learning = sum(n * p.numel() for _, p, n in learned)
    buffers = model.buffer_bytes()
    saved = sum(n * t.numel() * t.element_size() for _, t, n in model.tensors())
    matrices = sum(n * p.numel() for name, p, n in learned if p.ndim >= 2 and not is_table(name))
    average = FLOAT * learning if config.average else 0
    # Sharded moments are saved in float32.
    saved_as = "adamw" if sharded and config.optimizer == "adamw8bit" else config.optimizer
    saved_moments = sum(n * moment_bytes(saved_as, name, p) for name, p, n in learned)
    checkpoint = saved + average + saved_moments
    sizes = model.block_sizes()
    weights = FLOAT * model.parameters_total() // shares
    dense, tokens_per_step = sharded or processes > 1, config.batch * config.context
    gradients = FLOAT * learning // shares - spared_gradient_bytes(recipe.model, tokens_per_step, dense)
    on_device = 0 if config.offload else 1
    # Where weights are gathered and freed, so are their copies.
    cast = autocast and not sharded
    flops = model.flops_per_token(config.context)
    saves = -(-config.steps // config.save_every)
    stages = [(stage.layers, stage.end - stage.begin) for stage in recipe.growth_stages]
    forward_flops = sum(_stage_flops(recipe, layers, flops) * steps for layers, steps in stages)
    return Plan(
        name=recipe.name,
        parameters_total=model.parameters_total(),
        parameters_active=model.parameters_active(),
        flops_per_token=flops,
        training_flops=(1 + BACKWARD) * tokens_per_step * forward_flops,
        weights_bytes=on_device * weights + buffers,
        gradients_bytes=on_device * gradients,
        optimizer_bytes=on_device * moments,
        autocast_bytes=2 * matrices if cast else 0,
        average_bytes=on_device * average // shares,
        # Weights and gradients outside the blocks, all the time; of blocks two at a time, and gradients once
        # more as they are sent.
        gathered_bytes=FLOAT * (2 * model.shell_size() + 4 * max(sizes)) if sharded else 0,
        host_bytes=(1 - on_device) * (weights + gradients + moments + average // shares),
        micro_batch=config.micro_batch or config.batch,
        steps=config.steps,
        context=config.context,
        tokens_per_step=tokens_per_step,
        tokens=tokens_per_step * config.steps,
        data_tokens=data_tokens,
        checkpoint_bytes=checkpoint,
        disk_bytes=min(config.keep + MORE_CHECKPOINTS, saves + 1) * checkpoint,
        stages=tuple(stages),
        epochs_by_language=epochs_by_language,
    )


def _stage_flops(recipe: Recipe, layers: int, whole: float) -> float:
    """Forward operations a token of the stage with `layers` layers; `whole`: with all layers."""
    if layers == recipe.model.layers:
        return whole
    return outline(stage_config(recipe.model, layers)).flops_per_token(recipe.train.context)


def plan_run(
    recipe: Recipe,
    device: torch.device,
    data_tokens: int | None,
    epochs_by_language: dict[str, float] | None = None,
    micro_batch: int | None = None,
    thorough: bool = False,
    measured: bool = True,
    held: int = 0,
    processes: int = 1,
    limit: int | None = None,
) -> tuple[Plan, int]:
    """Plan a run on this device; where the recipe leaves the micro-batch open, it is the largest that fits.

    A few layers are measured where the micro-batch is open and memory may be short, where the run is long,
    and where `thorough`.

    Args:
        recipe: The recipe to train.
        device: Where to train.
        data_tokens: Tokens in the data, where they are prepared.
        epochs_by_language: Passes over each language's windows.
        micro_batch: Windows at a time of the run to resume.
        thorough: Whether to measure even what is certain to fit. Where measuring would take too much, the
            activations are counted generously, and the time is that of the matrix products alone.
        measured: Whether anything may be measured.
        held: Bytes of the run's model that the device holds already.
        processes: Processes that train together.
        limit: Windows at a time at most.

    Returns:
        The plan, and the bytes of memory the run may use.
    """
    config = recipe.train
    budget_bytes = USED_SHARE * (free_memory(device) + held)
    budget_bytes = round(budget_bytes / (HEAP if device.type == "cpu" else 1))
    rows = config.batch // processes
    micro_batch, limit = config.micro_batch or micro_batch, min(rows, limit or rows)
    dtype = autocast_dtype(config.dtype, device)
    plan = build_plan(recipe, data_tokens, dtype is not None, epochs_by_language, processes)
    on_gpu = device.type == "cuda"
    window = generous_bytes(recipe.model, config.context)
    easy = rows * window + plan.memory_bytes < budget_bytes / 4
    tight = micro_batch is None and (on_gpu or not easy)
    wanted = measured and (tight or thorough or plan.training_flops > LONG)
    speed_dtype = dtype if on_gpu else None
    if not wanted or why_not_measured(recipe, device, budget_bytes):
        if tight:
            # By the generous count where nothing is measured.
            spare = budget_bytes - plan.memory_bytes - plan.host_bytes
            fits = max(1, min(limit, spare // window))
            micro_batch = next(count for count in range(fits, 0, -1) if rows % count == 0)
        plan = replace(plan, micro_batch=min(micro_batch or limit, limit))
        if thorough:
            seconds = _fastest_step(plan, device, speed_dtype, processes)
            plan = replace(plan, activations_bytes=plan.micro_batch * window, step_seconds=seconds)
        return plan, budget_bytes
    cost = measure_step_cost(recipe, device)
    if not on_gpu:
        # Device and host are one.
        budget_bytes = max(0, budget_bytes - plan.host_bytes)
    micro_batch = micro_batch or largest_fitting(plan, cost, rows, budget_bytes) or 1
    micro_batch = min(micro_batch, limit)
    plan = plan.with_cost(cost, rows, micro_batch)
    # Differences of short timings may vanish on a busy machine, but no step is faster than its products.
    fastest = _fastest_step(plan, device, speed_dtype, processes)
    return replace(plan, step_seconds=max(cost.seconds(rows, micro_batch), fastest)), budget_bytes


def _fastest_step(plan: Plan, device: torch.device, dtype: torch.dtype | None, processes: int) -> float:
    """Seconds of the matrix products of a step, at the measured speed."""
    return plan.training_flops / plan.steps / processes / matmul_flops(device, dtype)


def shortfall(plan: Plan, budget_bytes: int, device: torch.device, held: int = 0) -> str | None:
    """Which memory the plan exceeds, in words: the device's `budget_bytes` or the host's; None where it fits.

    `held`: bytes of the run that the host holds already.
    """
    host = round(USED_SHARE * (free_memory(torch.device("cpu")) + held))
    if plan.peak_bytes and plan.peak_bytes > budget_bytes:
        return f"{byte_size(plan.peak_bytes)} at the peak, {byte_size(budget_bytes)} of memory available"
    if device.type == "cuda" and plan.host_bytes > host:
        return f"{byte_size(plan.host_bytes)} on the host, {byte_size(host)} of its memory available"
    return None


def largest_fitting(plan: Plan, cost: StepCost, batch: int, budget_bytes: int) -> int | None:
    """The largest divisor of the batch that fits as a micro-batch; None where not even one window does."""
    for rows in range(batch, 0, -1):
        if batch % rows == 0:
            peak = plan.with_cost(cost, batch, rows).peak_bytes
            if peak is not None and peak <= budget_bytes:
                return rows
    return None


def moment_bytes(optimizer: str, name: str, parameter: torch.Tensor, shares: int = 1) -> int:
    """Bytes that `optimizer` keeps for one of `shares` of the parameter called `name`."""
    count = -(-parameter.numel() // shares)
    if is_table(name):
        return FLOAT * -(-len(parameter) // shares)
    if optimizer == "muon" and orthogonalises(name, parameter):
        return FLOAT * count
    if optimizer == "adamw8bit" and in_8_bits(name) and is_quantised(count):
        # Two moments of a byte, and a float32 scale for each block.
        return 2 * (count + FLOAT * count // BLOCK)
    return 2 * FLOAT * count
