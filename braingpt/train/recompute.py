"""Recomputation (gradient checkpointing): each block keeps its input and computes the rest again in the
backward pass.
"""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint


def recomputing(model: torch.nn.Module) -> None:
    """Let each block keep its input alone and compute the rest again in the backward pass, from now on: less
    memory, a third more work.
    """
    for block in model.blocks:
        # nothing is drawn in a block
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
