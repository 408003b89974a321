"""`braingpt.load`: a run folder or a checkpoint to a model ready for use, and its tokenizer."""

from pathlib import Path

import torch

from braingpt.checkpoint.checkpoint import load_model
from braingpt.checkpoint.listing import resolve
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer


def load(
    path: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Tokenizer]:
    """Load a trained model.

    Args:
        path: A run folder, whose newest checkpoint is taken, or a checkpoint; None: the newest run under
            `runs/`.
        device: Where the model computes.

    Returns:
        The model, in eval mode and float32, and its tokenizer.

    Raises:
        UserError: There is no checkpoint; the message names the command that makes one.
        Failure: The checkpoint is damaged.
    """
    model, tokenizer, _recipe, _state = load_model(resolve(path), device)
    return model.eval(), tokenizer
