"""Evaluation mode without gradients, for as long as a `with` block lasts."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the mode the model was in comes back."""
    was_training = model.training
    # switching walks over every module: not once a token
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()
