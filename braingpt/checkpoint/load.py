"""`braingpt.load`: a run folder or a checkpoint to a model ready for use, and its tokenizer.

A run that trains meanwhile saves and deletes checkpoints: the one that is read is held, and one that is gone
before it could be held is replaced by the newest.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from braingpt.checkpoint.checkpoint import load_model
from braingpt.checkpoint.listing import held, resolve
from braingpt.device.device import pick_device
from braingpt.errors import Failure, UserError
from braingpt.model.lm import LanguageModel
from braingpt.recipes import Recipe
from braingpt.tokenizer import Tokenizer
from braingpt.utils.arguments import path_of

# How often a run's newest checkpoint may vanish before it is read.
TRIES = 100


class Loaded(NamedTuple):
    """What a checkpoint holds for inference; `state` is the content of its state.json."""

    model: LanguageModel
    tokenizer: Tokenizer
    recipe: Recipe
    state: dict[str, Any]
    folder: Path


def load_run(path: str | Path | None = None, device: str | torch.device = "cpu") -> Loaded:
    """Load a checkpoint, also while its run saves and deletes checkpoints.

    Args:
        path: A run folder, whose newest checkpoint is taken, or a checkpoint; None: the newest run.
        device: Where the model computes.

    Returns:
        The model in train mode and float32, with all that belongs to it.

    Raises:
        UserError: There is no checkpoint, or this version does not know its model.
        Failure: The checkpoint is damaged.
    """
    for _ in range(TRIES):
        folder = resolve(path)
        with held(folder) as there:
            if not there:
                continue
            try:
                return Loaded(*load_model(folder, device), folder)
            except (UserError, Failure, OSError):
                # A rewind of the run may have taken it away.
                if (folder / "state.json").is_file():
                    raise
    raise Failure(f"the checkpoints of {path or folder} vanish while they are read; try again")


def load(
    path: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Tokenizer]:
    """Load a trained model.

    Args:
        path: A run folder, whose newest checkpoint is taken, or a checkpoint; None: the newest run under
            `runs/`.
        device: Where the model computes: cpu, cuda, cuda:N, or auto for a GPU if there is one.

    Returns:
        The model, in eval mode and float32, and its tokenizer. The weights are ordinary tensors also under
        `torch.inference_mode()`, so that the model can be trained later.

    Raises:
        UserError: There is no checkpoint; the message names the command that makes one.
        Failure: The checkpoint is damaged.
    """
    place = pick_device(device) if isinstance(device, str) else device
    loaded = load_run(None if path is None else path_of("the run", path), place)
    return loaded.model.eval(), loaded.tokenizer
