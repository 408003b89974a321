"""Export a checkpoint for inference: no optimizer, 2:4 weights compressed, matrices in 16 bits if wanted.

Only matrices are cast, which are nearly all of the bytes. Vectors (norms, decays, thresholds of the
controllers) stay in float32, because rounding a threshold changes which tokens are chosen. Loading casts
everything back to float32 and expands compressed weights.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from braingpt.checkpoint.checkpoint import save
from braingpt.checkpoint.load import load_run
from braingpt.errors import UserError, did_you_mean
from braingpt.model.columns.two_four import packed_two_four
from braingpt.model.config import ModelConfig, V1Config
from braingpt.model.outline import outline
from braingpt.utils.formatting import byte_size
from braingpt.utils.paths import check_folder, existing_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Keys of state.json that saving writes itself.
OWN_KEYS = ("format", "version", "step", "tokens", "files", "sha256")


def export_checkpoint(source: Path, out: Path, dtype: str = "float32") -> dict[str, Any]:
    """Export a checkpoint.

    Args:
        source: The checkpoint, or a run folder, whose newest checkpoint is taken.
        out: The new folder.
        dtype: Number type of matrices: float32, bfloat16 or float16.

    Returns:
        Paths, type, both sizes in bytes, and `largest_rounding`: the largest rounding error of a weight,
        relative to the largest weight of its matrix.

    Raises:
        UserError: The type is unknown, the folder holds files, or a weight is too large for float16.
    """
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype '{dtype}'{did_you_mean(dtype, DTYPES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists; name a new folder, or remove it first")
    check_folder(out, "the folder")
    model, tokenizer, recipe, state, source = load_run(source)
    needed = _least_bytes(recipe.model, DTYPES[dtype])
    free = shutil.disk_usage(existing_folder(out)).free
    if needed > free:
        raise UserError(
            f"{out} would take at least {byte_size(needed)}, its disk has {byte_size(free)} free; "
            "name a folder on another disk"
        )
    # From state.json, because the run may have pruned the checkpoint meanwhile.
    before = len(json.dumps(state, indent=1)) + 1 + sum(about["bytes"] for about in state["files"].values())
    error = _cast_matrices(model, DTYPES[dtype])
    model.register_state_dict_post_hook(lambda _model, state, prefix, _metadata: _pack(model, state))
    extra = {key: value for key, value in state.items() if key not in OWN_KEYS}
    extra["exported"] = {"from": source.name, "dtype": dtype}
    save(
        out,
        model=model,
        tokenizer=tokenizer,
        recipe=recipe,
        step=state["step"],
        tokens=state["tokens"],
        extra=extra,
    )
    return {
        "source": str(source),
        "out": str(out),
        "dtype": dtype,
        "bytes_before": before,
        "bytes_after": _size(out),
        "largest_rounding": error,
    }


def _least_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of the exported weights, at least: 2:4 weights take a little more than half of theirs."""
    least = sum(count * p.numel() for _, p, count in outline(config).learned())
    return int(least * dtype.itemsize / (2 if isinstance(config, V1Config) and config.two_four else 1))


def _cast_matrices(model: torch.nn.Module, dtype: torch.dtype) -> float:
    """Cast matrices in place; the largest |cast - weight| over the matrix's largest |weight|."""
    worst = 0.0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        largest = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
        if largest > torch.finfo(dtype).max:
            kind = str(dtype).removeprefix("torch.")
            raise UserError(f"{name} holds {largest:.3g}, too large for {kind}; use bfloat16")
        cast = parameter.detach().to(dtype)
        if largest > 0:
            worst = max(worst, float((cast.float() - parameter.detach().float()).abs().max()) / largest)
        parameter.data = cast
    return worst


def _pack(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Replace 2:4 weights and masks in a state dictionary by their compressed form."""
    packed = packed_two_four(model, state)
    state.clear()
    state.update(packed)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
