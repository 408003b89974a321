"""Evaluation mode without gradients inside a `with` block."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the model's former mode afterwards."""
    was_training = model.training
    # Switching visits every module, which would be slow once a token.
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()
