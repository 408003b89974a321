"""Saving and loading checkpoints, whose format is described in `format.py`.

A checkpoint is written to a hidden sibling folder, every file is flushed to the disk, and the folder is
renamed: a checkpoint that can be seen is complete. Loading compares size and hash of each file before it is
used. Nothing is pickled.
"""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from braingpt import __version__
from braingpt.checkpoint import sharded
from braingpt.checkpoint.contents import Contents, contents, distinct
from braingpt.checkpoint.format import (
    FINAL,
    FORMAT,
    RECIPE,
    RNG_CPU,
    RNG_CUDA,
    STATE,
    TOKENIZER,
    TRAINED,
    flush,
)
from braingpt.checkpoint.state import damaged
from braingpt.checkpoint.state import read_state as read_state
from braingpt.checkpoint.state import weights_hash as weights_hash
from braingpt.checkpoint.tensors import load_tensors, save_tensors
from braingpt.checkpoint.verify import sha256
from braingpt.checkpoint.verify import verify as verify
from braingpt.distributed.sharded_tensors import assign_full
from braingpt.distributed.world import World
from braingpt.errors import Failure, UserError
from braingpt.model.columns.two_four import unpacked_two_four
from braingpt.model.lm import LanguageModel, build
from braingpt.model.memory_limits import require_weights
from braingpt.optim.optimizer import Optimizers, is_table, templates, unpack_state
from braingpt.optim.weight_average import Average
from braingpt.recipes import Recipe, load_recipe, save_recipe
from braingpt.tokenizer import Tokenizer
from braingpt.utils.hashed_json import hashed
from braingpt.utils.scratch import move_into_place, scratch_folder


def save(
    folder: Path,
    *,
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    recipe: Recipe,
    step: int,
    tokens: int,
    optimizer: Optimizers | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of a model on one process: `contents` and `write` in one call.

    Args:
        folder: The checkpoint's folder.
        model: The model.
        tokenizer: The model's tokenizer.
        recipe: The recipe of this model.
        step: Finished optimizer steps.
        tokens: Tokens that these steps have seen.
        optimizer: The model's optimizers; None: the checkpoint serves inference only.
        extra: Further keys of state.json.

    Returns:
        The folder.

    Raises:
        OSError: The disk is full or not writable; an older checkpoint of this name is then kept.
    """
    return write(
        folder,
        contents(model, optimizer),
        tokenizer=tokenizer,
        recipe=recipe,
        step=step,
        tokens=tokens,
        extra=extra,
    )


def write(
    folder: Path,
    tensors: Contents,
    *,
    tokenizer: Tokenizer,
    recipe: Recipe,
    step: int,
    tokens: int,
    extra: dict[str, Any] | None = None,
    final: Recipe | None = None,
    world: World | None = None,
) -> Path:
    """Write a checkpoint, and replace one that has the same name.

    Args:
        folder: The checkpoint's folder.
        tensors: From `contents`.
        tokenizer: The tokenizer.
        recipe: The recipe of this model.
        step: Finished optimizer steps.
        tokens: Tokens that these steps have seen.
        extra: Further keys of state.json.
        final: The recipe of the run, where this model is a stage of growth before the last.
        world: The processes that hold parts of the tensors and write them together, on a shared file system;
            None: this process holds the full tensors.

    Returns:
        The folder.

    Raises:
        OSError: The disk is full or not writable; an older checkpoint of this name is then kept.
    """
    # The folder behind a link is written, and the link stays.
    folder, processes = Path(os.path.realpath(folder)), world or World()
    scratch = ExitStack()
    parts = {"model": tensors.model} | ({} if tensors.training is None else {"optimizer": tensors.training})

    def begin() -> Path:
        temporary = scratch.enter_context(scratch_folder(folder))
        save_recipe(recipe, temporary / RECIPE)
        if final is not None:
            save_recipe(final, temporary / FINAL)
        tokenizer.save(temporary / TOKENIZER)
        return temporary

    def own_part() -> dict[str, Any]:
        """Write this process's tensors, flush its files; their sizes and hashes by name."""
        written = [path for name, part in parts.items() for path in _save_part(part, temporary / name, world)]
        if processes.is_rank0:
            written += [
                path for path in temporary.rglob("*") if path.is_file() and path.suffix != ".safetensors"
            ]
        for path in written:
            # safetensors makes files that only their owner can read.
            path.chmod((temporary / RECIPE).stat().st_mode)
            flush(path)
        return {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in written
        }

    def finish(files: dict[str, Any]) -> None:
        state = {
            "format": FORMAT,
            "version": __version__,
            "step": step,
            "tokens": tokens,
            **(extra or {}),
            "files": files,
        }
        text = json.dumps(hashed(state), indent=1, allow_nan=False) + "\n"
        (temporary / STATE).write_text(text, encoding="utf-8")
        folders = [path for path in temporary.iterdir() if path.is_dir()]
        for path in [temporary / STATE, *folders, temporary]:
            flush(path)
        move_into_place(temporary, folder)
        flush(folder.parent)

    with scratch:
        temporary = processes.run_on_rank0(begin)
        of_processes = processes.all_gather(processes.run_on_all(own_part))
        files = {name: about for files in of_processes for name, about in files.items()}
        processes.run_on_rank0(lambda: finish(dict(sorted(files.items()))))
    return folder


def _save_part(tensors: dict[str, torch.Tensor], path: Path, world: World | None) -> list[Path]:
    """Write tensors as PATH.safetensors, or this process's parts into the folder PATH; the new files."""
    if world is not None:
        return sharded.save(tensors, path)
    save_tensors(tensors, path.with_suffix(".safetensors"))
    return [path.with_suffix(".safetensors")]


def load_model(
    folder: Path, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Tokenizer, Recipe, dict[str, Any]]:
    """Load what a checkpoint holds for inference.

    Args:
        folder: The checkpoint.
        device: Where the model computes.

    Returns:
        The model in train mode and float32, its tokenizer, its recipe, and state.json.

    Raises:
        UserError: There is no checkpoint, this version does not know its model, or it does not fit.
        Failure: The checkpoint is damaged.
    """
    folder = Path(folder)
    state = read_state(folder)
    verify(folder, state, (name for name in state["files"] if not name.startswith("optimizer")))
    try:
        recipe = load_recipe(folder / RECIPE)
    except UserError as error:
        # Another version of braingpt wrote it.
        raise UserError(
            f"{folder} holds a model that braingpt {__version__} does not know ({error}); "
            "use the version that saved it"
        ) from None
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > recipe.model.vocab:
        raise damaged(
            folder,
            f"{folder} does not fit together: its tokenizer has {tokenizer.vocab_size:,} tokens, "
            f"its model {recipe.model.vocab:,}",
        )
    require_weights(recipe.model, torch.device(device))
    # Tensors made in inference mode could neither be filled in place nor trained.
    with torch.inference_mode(False):
        model = build(recipe)
        load_weights(model, folder, map_tables=True)
        model = model.to(device)
    model.end_of_text = tokenizer.eot
    return model, tokenizer, recipe, state


def run_recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of the run that saved a checkpoint, not of its stage of growth.

    Args:
        folder: The checkpoint.
        overrides: Values to replace, such as `train.steps=2000`.

    Raises:
        UserError: As `load_recipe` raises it.
        Failure: The recipe is damaged.
    """
    state = read_state(folder)
    name = FINAL if FINAL in state["files"] else RECIPE
    verify(folder, state, [name])
    return load_recipe(Path(folder) / name, list(overrides))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that was saved with a checkpoint.

    Args:
        folder: The checkpoint.

    Raises:
        UserError: There is no checkpoint with a tokenizer.
        Failure: The tokenizer's files are damaged.
    """
    return Tokenizer.load(Path(folder) / TOKENIZER)


def load_weights(model: torch.nn.Module, folder: Path, map_tables: bool = False) -> None:
    """Fill a model with a checkpoint's parameters and buffers.

    Args:
        model: A model of the checkpoint's recipe, which may be sharded.
        folder: The checkpoint.
        map_tables: Leave tables of which a token looks up a few rows in the file. They are then read where
            they are looked up, from memory that the system may free; writing changes a copy of the page.

    Raises:
        Failure: The checkpoint cannot be read, or holds another model.
    """
    path, own = Path(folder) / "model", distinct(model.state_dict())
    if path.is_dir():
        tensors = None
        saved = {name: shape for name, (shape, _) in sharded.shapes(path).items()}
    else:
        path = path.with_suffix(".safetensors")
        tensors = unpacked_two_four(load_tensors(path))
        saved = {name: tensor.shape for name, tensor in tensors.items()}
    if mismatch := _first_mismatch({name: tensor.shape for name, tensor in own.items()}, saved):
        raise Failure(f"{path} does not match {RECIPE}: {mismatch}")
    with torch.no_grad():
        if tensors is None:
            sharded.load(own, path)
        else:
            parameters = dict(model.named_parameters()) if map_tables else {}
            for name, value in tensors.items():
                if map_tables and is_table(name) and value.dtype == own[name].dtype:
                    parameters[name].data = value
                else:
                    assign_full(own[name], value)


def _first_mismatch(own: dict[str, torch.Size], saved: dict[str, torch.Size]) -> str | None:
    """What differs first between the shapes that a recipe needs and those of a checkpoint, in words."""
    if missing := sorted(own.keys() - saved.keys()):
        return f"the recipe needs '{missing[0]}', which is not there"
    if unknown := sorted(saved.keys() - own.keys()):
        return f"the recipe has no '{unknown[0]}'"
    for name in sorted(own):
        if own[name] != saved[name]:
            return f"'{name}' has shape {tuple(saved[name])}, the recipe needs {tuple(own[name])}"
    return None


def load_training(
    model: torch.nn.Module, optimizer: Optimizers, folder: Path, average: Average | None = None
) -> None:
    """Restore the states of optimizer and random generators, from which training continues.

    Args:
        model: The model, whose weights were loaded.
        optimizer: Its optimizers, to be filled.
        folder: The checkpoint.
        average: The moving average of the weights, to be filled; the model holds it, and gets the trained
            weights in exchange.

    Raises:
        UserError: The checkpoint serves inference only.
        Failure: The checkpoint belongs to another model.
    """
    path, state = Path(folder) / "optimizer", read_state(folder)
    if not any(name.startswith("optimizer") for name in state["files"]):
        raise UserError(
            f"{folder} was saved for inference, without the optimizer's state; "
            "training cannot continue from it"
        )
    if path.is_dir():
        tensors = templates(model, sharded.shapes(path))
        sharded.load(tensors, path)
    else:
        tensors = load_tensors(path.with_suffix(".safetensors"))
    trained = {
        name.removeprefix(TRAINED): tensors.pop(name) for name in list(tensors) if name.startswith(TRAINED)
    }
    if average is not None:
        average.restore(trained, state.get("averaged", 0))
    cpu, cuda = tensors.pop(RNG_CPU), tensors.pop(RNG_CUDA, None)
    try:
        unpack_state(model, optimizer, tensors)
    except ValueError as error:
        raise Failure(f"{path} does not belong to this model: {error}") from None
    torch.set_rng_state(cpu)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
