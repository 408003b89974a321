"""A model in training with everything that trains it: forward pass, optimizer and average.

A `Learner` is one value. `build_learner` makes it; growth and resuming take one and return the one to
continue with. A `Placement` says where it computes: device, precision and processes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from braingpt.device.compile import compile_training
from braingpt.device.device import autocast
from braingpt.distributed.world import World
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import LanguageModel, build
from braingpt.optim.optimizer import Optimizers, build_optimizer
from braingpt.optim.weight_average import Average
from braingpt.recipes import Recipe, TrainConfig
from braingpt.train.plan.plan import BACKWARD
from braingpt.train.recompute import recompute_blocks


@dataclass(frozen=True)
class Placement:
    """Where a run computes: device, processes, and precision of products (`dtype` None: float32)."""

    device: torch.device
    dtype: torch.dtype | None
    world: World

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which products run in `dtype`."""
        # Gathered weights are freed after each block, and a cached copy in bfloat16 would outlive them.
        return autocast(self.device, self.dtype, cached=not self.world.sharded)


@dataclass(frozen=True)
class Learner:
    """A model and what trains it.

    Attributes:
        model: The model, whose names checkpoints use.
        forward: What a step calls: the model, wrapped for several processes and compiled where asked.
        wrapped: The model, wrapped for several processes; it decides when gradients are exchanged.
        optimizer: The optimizers of all trainable parameters.
        average: The moving average of the weights (`train.average`), or None.
        flops_per_token: Floating-point operations of forward and backward pass, averaged over a window.
    """

    model: LanguageModel
    forward: Callable[..., Any]
    wrapped: torch.nn.Module
    optimizer: Optimizers
    average: Average | None
    flops_per_token: float


def build_learner(model: LanguageModel, config: TrainConfig, placement: Placement) -> Learner:
    """Put `model` on its device and give it a fresh optimizer and average.

    Args:
        model: The model to train; it is changed in place.
        config: The recipe's `train` section.
        placement: Device, precision and processes.

    Raises:
        UserError: `train.compile` is set and there is no C++ compiler.
    """
    if config.recompute:
        recompute_blocks(model)
    wrapped = placement.world.wrap(model, placement.device)
    forward: Callable[..., Any] = wrapped
    if config.compile:
        forward = compile_training(model, wrapped, placement.device)
    return Learner(
        model=model,
        forward=forward,
        wrapped=wrapped,
        optimizer=build_optimizer(model, config),
        average=Average(model, config.average) if config.average else None,
        flops_per_token=(1 + BACKWARD) * model.flops_per_token(config.context),
    )


def fresh_model(recipe: Recipe, layers: int) -> LanguageModel:
    """The untrained model of a stage of growth.

    Args:
        recipe: The run's recipe.
        layers: Layers of the stage.
    """
    return build(stage_config(recipe.model, layers), recipe.train.seed)
