"""The format of a checkpoint: one folder, complete in itself, never half there.

    step-0000250/
      model.safetensors      parameters and buffers (controllers included); a tied tensor once
      optimizer.safetensors  the optimizers' moments by parameter name, the states of the random generators;
                             with train.average, the trained weights
      recipe.yaml            the resolved recipe of this model
      final.yaml             in a stage of growth before the last: the recipe of the run
      tokenizer/             the tokenizer, complete
      state.json             step, tokens, version, best validation loss, size and SHA-256 of every other file

Processes that hold parts of the weights (`train.parallel: fsdp`) write folders instead of the two files,
model/ and optimizer/, and each process writes its part. Any number of processes resumes from both forms, and
every command reads both.

This module reads state.json and verifies files; `checkpoint.py` saves and loads.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from braingpt import __version__
from braingpt.checkpoint.listing import list_checkpoints
from braingpt.errors import Failure, UserError

FORMAT = 1
STATE, RECIPE, FINAL, TOKENIZER = "state.json", "recipe.yaml", "final.yaml", "tokenizer"
# Names of the random generators' states in the optimizer's file.
RNG_CPU, RNG_CUDA = "rng.cpu", "rng.cuda"
# Prefix of the trained weights in the optimizer's file, where the model's file holds their average.
TRAINED = "trained."


def read_state(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint's state.json.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: There is no checkpoint, or it has the format of another version.
        Failure: state.json is damaged.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint (it has no {STATE})")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        _check_keys(state)
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path} is damaged; use another checkpoint{_other_checkpoint(folder)}") from None
    if state.get("format") != FORMAT:
        raise UserError(
            f"{folder} has checkpoint format {state.get('format')}; "
            f"braingpt {__version__} reads format {FORMAT}"
        )
    return state


def _check_keys(state: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError where a key that every command needs is missing."""
    weights_hash(state)
    str(state["files"][RECIPE]["sha256"])
    int(state["step"])
    int(state["tokens"])


def weights_hash(state: dict[str, Any]) -> str:
    """The SHA-256 of the model's file, or of the hashes of its parts, as state.json names them.

    Loading compares these with the files. Raises KeyError where state.json names no file of the model.
    """
    hashes = [
        about["sha256"] for name, about in sorted(state["files"].items()) if re.match(r"model[./]", name)
    ]
    if not hashes:
        raise KeyError("model")
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def verify(folder: Path, state: dict[str, Any] | None = None, names: Iterable[str] | None = None) -> None:
    """Compare size and SHA-256 of a checkpoint's files with state.json.

    Args:
        folder: The checkpoint.
        state: Its state.json, if it was read before.
        names: The files to compare; None: all.

    Raises:
        Failure: A file is missing or differs; the message names the first one.
    """
    folder = Path(folder)
    files = (state or read_state(folder))["files"]
    for name in names or files:
        path = folder / name
        if not path.is_file():
            raise Failure(f"{path} is missing; use another checkpoint{_other_checkpoint(folder)}")
        if path.stat().st_size != files[name]["bytes"] or sha256(path) != files[name]["sha256"]:
            raise Failure(
                f"{path} is damaged: it is not the file that was saved; "
                f"use another checkpoint{_other_checkpoint(folder)}"
            )


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Ask the system to write a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _other_checkpoint(folder: Path) -> str:
    """The end of a message that names another checkpoint of the run, if there is one."""
    others = [path for path in list_checkpoints(Path(folder).parent.parent) if path != Path(folder)]
    return f", like {others[-1]}" if others else ""
