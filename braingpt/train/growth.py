"""Developmental growth in a run: at its steps the model is exchanged for a deeper one that computes the same
(`model/growth.py`).

Weights, buffers and the optimizer's moments of the old blocks go over by name; the new blocks begin fresh.
Growing is a function of what a checkpoint holds and of the seed, so a run that is resumed before it, behind
it or in the midst of a stage goes on as if it had never stopped.
"""

from typing import Any

from braingpt.device.compile import compile_training
from braingpt.model.growth import grow
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import LanguageModel, build
from braingpt.optim.optimizer import build_optimizer, pack_state, unpack_state
from braingpt.optim.schedule import layers_at
from braingpt.optim.weight_average import Average
from braingpt.recipes import Recipe
from braingpt.train.plan.plan import BACKWARD
from braingpt.train.recompute import recomputing


def build_learner(trainer: Any, model: LanguageModel) -> None:
    """Train this model from now on, with a fresh optimizer and average."""
    config = trainer.config
    trainer.model = model
    if config.recompute:
        recomputing(trainer.model)
    forward = trainer.world.wrap(trainer.model, trainer.device)
    trainer.forward = compile_training(trainer.model, forward, trainer.device) if config.compile else forward
    trainer.flops_per_token = (1 + BACKWARD) * trainer.model.flops_per_token(config.context)
    trainer.optimizer = build_optimizer(trainer.model, config)
    trainer.average = Average(trainer.model, config.average) if config.average else None


def fresh_model(recipe: Recipe, layers: int) -> LanguageModel:
    """The untrained model of the stage with so many layers."""
    return build(stage_config(recipe.model, layers), recipe.train.seed)


def stand_at(trainer: Any, layers: int) -> None:
    """Let the trainer have a model of so many layers, whose weights are still to be filled in; nothing
    changes where it has.
    """
    if len(trainer.model.blocks) != layers:
        build_learner(trainer, fresh_model(trainer.recipe, layers))


def grow_if_due(trainer: Any) -> int | None:
    """Grow before a step that belongs to a deeper stage; the layers there were before, or None.

    A model never shrinks.
    """
    if not trainer.config.growth:
        return None
    old, average, layers = trainer.model, trainer.average, layers_at(trainer.step, trainer.recipe)
    before = len(old.blocks)
    if layers <= before:
        return None
    moments = pack_state(old, trainer.optimizer)
    build_learner(trainer, grow(old, stage_config(trainer.recipe.model, layers), trainer.config.seed))
    unpack_state(trainer.model, trainer.optimizer, moments)
    if average:
        trainer.average.take_over(average)
    return before


def stage_of(recipe: Recipe, layers: int) -> int:
    """The number of the stage with so many layers, counted from 1."""
    return [stage.layers for stage in recipe.growth_stages].index(layers) + 1


def stage_recipe(recipe: Recipe, layers: int) -> Recipe:
    """What a checkpoint of a stage is: the same recipe for a model of these layers that does not grow."""
    if layers == recipe.model.layers:
        return recipe
    train = recipe.train.model_copy(update={"growth": None})
    return recipe.model_copy(update={"model": stage_config(recipe.model, layers), "train": train})
