"""`braingpt.load`: a run folder or a checkpoint to a model ready for use, and its tokenizer."""

from pathlib import Path
from typing import Any

import torch


def load(path: str | Path | None = None, device: str | torch.device = "cpu") -> tuple[Any, Any]:
    """(model, tokenizer) of a run folder (its newest checkpoint) or of one checkpoint; None takes the newest
    run under `runs/`.

    The model is in eval mode, float32, on `device`. Raises UserError where there is no checkpoint (naming the
    command that makes one), Failure where it is damaged.
    """
    from braingpt.checkpoint import checkpoint, listing

    model, tokenizer, _recipe, _state = checkpoint.load_model(listing.resolve(path), device)
    return model.eval(), tokenizer
