"""Developmental growth: a model begins shallow and grows deeper; what it computes is the same before and
after, to the bit.

New blocks are appended behind the old ones. A fresh block writes nothing into the residual stream, since its
output maps start at zero, so it is the identity until it has learned (as in Net2Net, Chen et al. 2016, and
stacking, Gong et al. 2019, without their copies). Old parameters and buffers keep their names, and with the
names their optimizer's state (`train/growth.py`). Positions are rotary or recurrent, so a stage may train on
windows of any length.
"""

import torch

from braingpt.distributed.sharded_tensors import full_tensor, is_sharded
from braingpt.errors import UserError
from braingpt.model.config import ModelConfig
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import LanguageModel, build


@torch.no_grad()
def grow(model: LanguageModel, config: ModelConfig, seed: int = 0) -> LanguageModel:
    """A deeper model of `config` that computes what `model` does; `seed` draws the new blocks: those that a
    model built with it would have. It is whole, also where `model` is spread over processes, which must
    all call this together.

    Raises UserError where the old ones do not fit.
    """
    if config.layers < model.config.layers or stage_config(config, model.config.layers) != model.config:
        raise UserError(
            f"a model of {model.config.layers} layers does not grow into one of {config.layers} with other settings"
        )
    # a device that holds a share may not hold all
    device = "cpu" if is_sharded(model.embedding.weight) else model.device
    grown = build(config, seed).to(device=device, dtype=model.embedding.weight.dtype).train(model.training)
    own = grown.state_dict()
    for name, value in model.state_dict().items():
        own[name].copy_(full_tensor(value))
    return grown
