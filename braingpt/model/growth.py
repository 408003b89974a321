"""Developmental growth: a model begins shallow and grows deeper; what it computes is the same before and after, to the bit.

New blocks are appended behind the old ones. A fresh block writes nothing into the residual stream, since its output maps start at zero, so it is the
identity until it has learned (as in Net2Net, Chen et al. 2016, and stacking, Gong et al. 2019, without their copies). Old parameters and buffers keep
their names, and with the names their optimizer's state: `unpack_state(grown, build_optimizer(grown, config), pack_state(model, optimizer))`
carries it over and leaves the new blocks' fresh. Positions are rotary or recurrent, so a stage may train on windows of any length.
"""

import math

import torch

from braingpt.errors import UserError
from braingpt.model.config import ModelConfig, V2Config
from braingpt.model.lm import LanguageModel, build

STAGES = (2, 4, 8, 12)  # layers of the stages before the last, of models deeper than the last of these
SHARES = (1 / 12, 1 / 6, 1 / 3, 1 / 2)  # of the layers, for shallower ones: the same stages of a model of 24


def stages(layers: int) -> tuple[int, ...]:
    """Layers of each stage, rising, the last being all: five of a deep model, fewer where shallow ones would repeat."""
    early = STAGES if layers > STAGES[-1] else (math.ceil(share * layers) for share in SHARES)
    return tuple(sorted({*early, layers}))


def stage_config(config: ModelConfig, layers: int) -> ModelConfig:
    """The settings of the stage of `config` that has so many layers. Raises UserError for a model that cannot grow."""
    if not 1 <= layers <= config.layers:
        raise UserError(f"a stage has 1 to {config.layers} layers, not {layers}")
    changed = {"layers": layers}
    if isinstance(config, V2Config):
        if config.depth_exits:
            raise UserError("a model with adaptive depth cannot grow: tokens that halt would not see the old layers behind a new exit")
        for part in ("attention", "memory"):
            settings = getattr(config, part)
            changed[part] = settings.model_copy(update={"layers": tuple(layer for layer in settings.layers if layer < layers)})
    return config.model_copy(update=changed)


@torch.no_grad()
def grow(model: LanguageModel, config: ModelConfig, seed: int = 0) -> LanguageModel:
    """A deeper model of `config` that computes what `model` does; `seed` draws the new blocks. Raises UserError where the old ones do not fit."""
    if stage_config(config, min(model.config.layers, config.layers)) != model.config or config.layers < model.config.layers:
        raise UserError(f"a model of {model.config.layers} layers does not grow into one of {config.layers} with other settings")
    stage_config(config, config.layers)
    grown = build(config, seed).to(device=model.device, dtype=model.embedding.weight.dtype).train(model.training)
    own = grown.state_dict()
    for name, value in model.state_dict().items():
        own[name].copy_(value)
    return grown
