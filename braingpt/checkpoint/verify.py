"""Whether a checkpoint is what was saved: every file by size and SHA-256, every weight and moment a number.

One pass over the files for the hashes, and one over the tensors for NaN and infinity.
The second takes less than the first (decision T-50).
"""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from braingpt.checkpoint.state import damaged, read_state

# Files of these kinds are read where they lie, so one that was not saved must not be there.
_READ = (".safetensors", ".yaml")


def verify(folder: Path, state: dict[str, Any] | None = None, names: Iterable[str] | None = None) -> None:
    """Compare a checkpoint's files with state.json, and look for NaN and infinity.

    Args:
        folder: The checkpoint.
        state: Its state.json, if it was read before.
        names: The files to compare; None: all.

    Raises:
        UserError: There is no checkpoint, or it has the format of another version.
        Failure: A file is missing, differs, was added, or holds NaN or infinity; the message names it.
    """
    folder = Path(folder)
    files = (state or read_state(folder))["files"]
    for path in sorted(folder.rglob("*")):
        if path.suffix in _READ and (name := path.relative_to(folder).as_posix()) not in files:
            raise damaged(folder, f"{folder / name} was not saved with the checkpoint; delete this file")
    for name in files if names is None else names:
        path = folder / name
        if not path.is_file():
            raise damaged(folder, f"{path} is missing")
        if path.stat().st_size != files[name]["bytes"] or sha256(path) != files[name]["sha256"]:
            raise damaged(folder, f"{path} is damaged: it is not the file that was saved")
        if path.suffix == ".safetensors":
            _check_finite(folder, path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, in one pass without a copy."""
    # Types of 8 bits have no extremes, and integers are finite.
    if not tensor.is_floating_point() or tensor.element_size() < 2 or tensor.numel() == 0:
        return True
    least, most = torch.aminmax(tensor)
    return math.isfinite(least) and math.isfinite(most)


def _check_finite(folder: Path, path: Path) -> None:
    """Raise Failure where a tensor of a safetensors file holds NaN or infinity."""
    try:
        with safe_open(path, "pt") as file:
            # `file` is not a dictionary.
            for name in file.keys():  # noqa: SIM118
                if not is_finite(file.get_tensor(name)):
                    raise damaged(folder, f"{path} holds NaN or infinity in '{name}'")
    except SafetensorError as error:
        raise damaged(folder, f"cannot read {path}: {error}") from None
