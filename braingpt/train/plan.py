"""What a run will take, before it begins: parameters, arithmetic, memory, tokens, disk. Read off the model itself, on the meta device.

Memory counts what is certain: weights, gradients and the optimizers' moments (AdamW two, Muon one), and under autocast the weights' bfloat16 copies. Activations
come on top; they grow with `micro_batch` x `context` and are not guessed at.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from braingpt.recipes import Recipe
from braingpt.train.optimizer import orthogonalises, trainable

BACKWARD = 2  # a backward pass computes two products for each of the forward pass


@dataclass(frozen=True)
class Plan:
    """Counts, bytes and floating-point operations. `data_tokens` is None when the data are not prepared."""

    name: str
    parameters_total: int
    parameters_active: int
    flops_per_token: float  # forward, averaged over a window
    training_flops: float  # forward and backward, over the whole run
    weights_bytes: int  # buffers included
    gradients_bytes: int
    optimizer_bytes: int
    autocast_bytes: int
    steps: int
    tokens_per_step: int
    tokens: int
    data_tokens: int | None
    checkpoint_bytes: int
    epochs_by_language: dict[str, float] | None = None  # passes over each language's windows, as the mixture draws them

    @property
    def memory_bytes(self) -> int:
        """All parts together, activations excluded."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.autocast_bytes

    @property
    def epochs(self) -> float | None:
        """How often the run reads its training data, all languages together."""
        return self.tokens / self.data_tokens if self.data_tokens else None

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {**asdict(self), "memory_bytes": self.memory_bytes, "epochs": self.epochs}

    def summary(self) -> str:
        """One line for the start of a run."""
        epochs = f", {self.epochs:.2g} epochs of {human(self.data_tokens)}" if self.data_tokens else ""
        if self.epochs_by_language and len(self.epochs_by_language) > 1:
            epochs += f" ({', '.join(f'{language} {count:.2g}' for language, count in self.epochs_by_language.items())})"
        return (
            f"{self.name}: {human(self.parameters_total)} parameters, {human(self.parameters_active)} active; "
            f"{self.steps:,} steps of {self.tokens_per_step:,} tokens = {human(self.tokens)}{epochs}; "
            f"{size(self.memory_bytes)} before activations, {size(self.checkpoint_bytes)} a checkpoint"
        )


def build_plan(recipe: Recipe, data_tokens: int | None, autocast: bool = False, epochs_by_language: dict[str, float] | None = None) -> Plan:
    """The plan of training `recipe` on `data_tokens` tokens; no weight is allocated."""
    from braingpt.model.lm import build

    with torch.device("meta"):
        model = build(recipe)
    config = recipe.train
    state = sum((4 if config.optimizer == "muon" and orthogonalises(n, p) else 8) * p.numel() for n, p in trainable(model))
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    stored = {id(t): t.numel() * t.element_size() for t in model.state_dict(keep_vars=True).values()}
    tokens_per_step = config.batch * config.context
    flops = model.flops_per_token(config.context)
    return Plan(
        name=recipe.name,
        parameters_total=model.parameters_total(),
        parameters_active=model.parameters_active(),
        flops_per_token=flops,
        training_flops=(1 + BACKWARD) * flops * tokens_per_step * config.steps,
        weights_bytes=weights,
        gradients_bytes=4 * learning,
        optimizer_bytes=state,
        autocast_bytes=2 * sum(p.numel() for p in model.parameters() if p.ndim >= 2) if autocast else 0,
        steps=config.steps,
        tokens_per_step=tokens_per_step,
        tokens=tokens_per_step * config.steps,
        data_tokens=data_tokens,
        checkpoint_bytes=sum(stored.values()) + state,
        epochs_by_language=epochs_by_language,
    )


def human(count: float) -> str:
    """A count in thousands, millions, ...: 60.1M."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f}{unit}"
    return f"{count:,.0f}"


def size(count: float) -> str:
    """Bytes in powers of 1000: 1.2 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:,.0f} B"
