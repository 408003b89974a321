"""Developmental growth in a run: at a stage's first step a deeper model that computes the same function
replaces the model (`model/growth.py`).

Weights, buffers and the optimizer's moments of the old blocks carry over by name; the new blocks start fresh.
Growth is a function of the checkpoint and the seed: a run resumed before, after or within a stage continues
as if it had never stopped.
"""

from braingpt.model.growth import grow
from braingpt.model.growth_stages import stage_config
from braingpt.optim.optimizer import pack_state, unpack_state
from braingpt.optim.schedule import layers_at
from braingpt.recipes import Recipe
from braingpt.train.learner import Learner, Placement, build_learner, fresh_model


def grow_if_due(learner: Learner, step: int, recipe: Recipe, placement: Placement) -> Learner:
    """The learner for `step`: a deeper one where the step belongs to a deeper stage, else `learner` itself.

    A model never shrinks. A learner that is replaced gives up its optimizer's state, so that memory holds the
    moments once.
    """
    layers = layers_at(step, recipe)
    if not recipe.train.growth or layers <= len(learner.model.blocks):
        return learner
    moments = pack_state(learner.model, learner.optimizer)
    learner.optimizer.clear_state()
    model = grow(learner.model, stage_config(recipe.model, layers), recipe.train.seed)
    deeper = build_learner(model, recipe.train, placement)
    unpack_state(deeper.model, deeper.optimizer, moments)
    if deeper.average and learner.average:
        deeper.average.take_over(learner.average)
    return deeper


def with_depth(learner: Learner, layers: int, recipe: Recipe, placement: Placement) -> Learner:
    """A learner of `layers` layers to load weights into: `learner` itself where it has as many."""
    if len(learner.model.blocks) == layers:
        return learner
    return build_learner(fresh_model(recipe, layers), recipe.train, placement)


def stage_of(recipe: Recipe, layers: int) -> int:
    """The number of the stage with `layers` layers, counted from 1."""
    return [stage.layers for stage in recipe.growth_stages].index(layers) + 1


def stage_recipe(recipe: Recipe, layers: int) -> Recipe:
    """The recipe a checkpoint of a stage carries: the same, for a model of `layers` layers without growth."""
    if layers == recipe.model.layers:
        return recipe
    train = recipe.train.model_copy(update={"growth": None})
    return recipe.model_copy(update={"model": stage_config(recipe.model, layers), "train": train})
