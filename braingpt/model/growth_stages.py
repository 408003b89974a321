"""Stages of developmental growth: the layers of each stage, and its settings. Nothing here imports torch."""

import math

from braingpt.errors import UserError
from braingpt.model.config import ModelConfig, V1Config, V2Config

# Layers of the early stages of models deeper than these.
STAGES = (2, 4, 8, 12)
# The same stages as shares of the layers of a model of 24, for shallower models.
SHARES = (1 / 12, 1 / 6, 1 / 3, 1 / 2)


def stages(layers: int) -> tuple[int, ...]:
    """Layers of each stage, rising to all: five stages, fewer where those of a shallow model repeat."""
    early = STAGES if layers > STAGES[-1] else (math.ceil(share * layers) for share in SHARES)
    return tuple(sorted({*early, layers}))


def stage_config(config: ModelConfig, layers: int) -> ModelConfig:
    """The settings of the stage with so many layers.

    Raises UserError for a model that cannot grow, or more layers than it has.
    """
    if not 1 <= layers <= config.layers:
        raise UserError(f"a stage has 1 to {config.layers} layers, not {layers}")
    if layers == config.layers:
        return config
    if config.depth_exits:
        raise UserError(
            "a model with adaptive depth cannot grow: tokens that halt would not see the old layers "
            "after a new exit"
        )
    changed: dict[str, object] = {"layers": layers}
    if isinstance(config, V2Config):
        for part in ("attention", "memory", "mamba"):
            settings = getattr(config, part)
            if settings.layers is not None:
                there = tuple(layer for layer in settings.layers if layer < layers)
                changed[part] = settings.model_copy(update={"layers": there})
        changed["lexical"] = config.lexical.before(layers)
    if isinstance(config, V1Config) and config.early_exit.places is not None:
        places = tuple(place for place in config.early_exit.places if place < layers)
        changed["early_exit"] = config.early_exit.model_copy(update={"places": places})
    return config.model_copy(update=changed)
