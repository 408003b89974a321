"""Stages of developmental growth: with how many layers a model begins, and what the settings of each stage
are. Plain settings: nothing here imports torch.
"""

import math

from braingpt.errors import UserError
from braingpt.model.config import ModelConfig, V1Config, V2Config

# layers of the stages before the last, of models deeper than the last of these
STAGES = (2, 4, 8, 12)
# of the layers, for shallower ones: the same stages of a model of 24
SHARES = (1 / 12, 1 / 6, 1 / 3, 1 / 2)


def stages(layers: int) -> tuple[int, ...]:
    """Layers of each stage, rising, the last being all: five of a deep model, fewer where shallow ones would
    repeat.
    """
    early = STAGES if layers > STAGES[-1] else (math.ceil(share * layers) for share in SHARES)
    return tuple(sorted({*early, layers}))


def stage_config(config: ModelConfig, layers: int) -> ModelConfig:
    """The settings of the stage of `config` that has so many layers.

    Raises UserError for a model that cannot grow.
    """
    if not 1 <= layers <= config.layers:
        raise UserError(f"a stage has 1 to {config.layers} layers, not {layers}")
    if layers == config.layers:
        return config
    if config.depth_exits:
        raise UserError(
            "a model with adaptive depth cannot grow: tokens that halt would not see the old layers behind a new exit"
        )
    changed = {"layers": layers}
    if isinstance(config, V2Config):
        for part in ("attention", "memory"):
            settings = getattr(config, part)
            changed[part] = settings.model_copy(
                update={"layers": tuple(layer for layer in settings.layers if layer < layers)}
            )
    if isinstance(config, V1Config) and config.early_exit.places is not None:
        places = tuple(place for place in config.early_exit.places if place < layers)
        changed["early_exit"] = config.early_exit.model_copy(update={"places": places})
    return config.model_copy(update=changed)
