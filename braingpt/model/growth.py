"""Developmental growth: a model begins shallow and grows deeper, without a change of its results.

New blocks are appended after the old blocks. The output maps of a fresh block start at zero, so the block is
the identity until it has learned (as in Net2Net, Chen et al. 2016, and stacking, Gong et al. 2019, without
their copies). Old parameters and buffers keep their names, and by the names their optimizer's state
(`train/growth.py`). Positions are rotary or recurrent, so a stage may train on windows of any length.
"""

import torch

from braingpt.distributed.sharded_tensors import full_tensor, is_sharded
from braingpt.errors import UserError
from braingpt.model.config import ModelConfig
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import LanguageModel, build


@torch.no_grad()
def grow(model: LanguageModel, config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Grow a model deeper without changing what it computes.

    Args:
        model: The shallow model. Where it is sharded over processes, all must call this together.
        config: The settings of the deeper model.
        seed: Seed of the new blocks, which are those of a model built with this seed.

    Returns:
        The deeper model, not sharded.

    Raises:
        UserError: `model` is not a stage of `config`.
    """
    if config.layers < model.config.layers or stage_config(config, model.config.layers) != model.config:
        raise UserError(
            f"a model of {model.config.layers} layers does not grow into one of {config.layers} "
            "with other settings"
        )
    # A device that holds one part of the weights may be too small for all of them.
    device = "cpu" if is_sharded(model.embedding.weight) else model.device
    grown = build(config, seed).to(device=device, dtype=model.embedding.weight.dtype).train(model.training)
    own = grown.state_dict()
    for name, value in model.state_dict().items():
        own[name].copy_(full_tensor(value))
    return grown
