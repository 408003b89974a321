"""One file of tensors (safetensors), with the errors of this package."""

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from braingpt.errors import Failure


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors into the file `path`. Raises OSError where the disk is full or not writable."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # The library puts the number of the system's error into its message.
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise Failure(f"cannot write {path}: {error}") from None
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in the file `path`. Raises Failure where it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Failure(f"cannot read {path}: {error}") from None
