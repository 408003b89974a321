"""Checkpoints: one folder, complete in itself, never half there.

    step-0000250/
      model.safetensors      parameters and buffers (controllers included); a tied tensor once
      optimizer.safetensors  the optimizers' moments by parameter name, the random generators' states; with
      train.average, the trained weights
      recipe.yaml            the resolved recipe of this very model
      final.yaml             in a stage of growth before the last: the recipe of the run, whose model it grows
      into
      tokenizer/             the tokenizer, complete
      state.json             step, tokens, version, best validation loss, size and SHA-256 of every other file

Processes that hold parts of the weights (`train.parallel: fsdp`) write folders in place of the two files,
model/ and optimizer/, each its own part; any number of processes goes on from either, and every command reads
either.

A checkpoint is written to a hidden sibling folder, every file flushed to the disk, and the folder renamed:
who sees the name sees all of it. Loading checks size and hash of each file before it is used. Nothing is
pickled.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from braingpt import __version__
from braingpt.checkpoint import sharded
from braingpt.checkpoint.listing import list_checkpoints, remove
from braingpt.distributed.sharded_tensors import assign_full, is_sharded, local_rows
from braingpt.distributed.world import World
from braingpt.errors import Failure, UserError
from braingpt.optim.optimizer import Optimizers, pack_state, templates, unpack_state
from braingpt.optim.weight_average import Average
from braingpt.recipes import Recipe, load_recipe, save_recipe

FORMAT = 1
FINAL = "final.yaml"
RNG_CPU, RNG_CUDA = "rng.cpu", "rng.cuda"
# before the names of the weights that training goes on from, where the model's are averaged
TRAINED = "trained."


class Contents(NamedTuple):
    """A checkpoint's tensors on the CPU: the model's by name, and what training goes on from (None: it serves
    inference only).
    """

    model: dict[str, torch.Tensor]
    training: dict[str, torch.Tensor] | None


def contents(
    model: torch.nn.Module,
    optimizer: Optimizers | None = None,
    average: Average | None = None,
    copied: bool = False,
) -> Contents:
    """The tensors to write; on a CPU the live ones, unless `copied`.

    With an `average`, the model's are the averaged weights.
    """
    weights = _distinct(model.state_dict())
    training = None if optimizer is None else pack_state(model, optimizer) | _random_state()
    if average is not None and training is not None:
        training |= {f"{TRAINED}{name}": weights[name] for name in average.values}
    if average is not None:
        weights |= average.values
    return Contents(_on_cpu(weights, copied), None if training is None else _on_cpu(training, copied))


def save(
    folder: Path,
    *,
    model: torch.nn.Module,
    tokenizer: Any,
    recipe: Recipe,
    step: int,
    tokens: int,
    optimizer: Optimizers | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of the model as it is: `contents` and `write` in one.

    Without `optimizer` it serves inference only.
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
    tokenizer: Any,
    recipe: Recipe,
    step: int,
    tokens: int,
    extra: dict[str, Any] | None = None,
    final: Recipe | None = None,
    world: World | None = None,
) -> Path:
    """Write a checkpoint to `folder`, replacing one that is there, and return it.

    `extra` goes into state.json as it is.

    `step` counts finished optimizer steps, `tokens` the tokens they saw. `final`: the recipe of the run,
    where its model grows into another than `recipe`'s. `world`: the processes that hold the tensors and write
    them together, on a file system they share; None where this process has them whole. Raises OSError when
    the disk is full or not writable; what was there before stays then.
    """
    folder, together = Path(folder), world or World()
    temporary = folder.parent / f".{folder.name}.tmp-{together.broadcast(os.getpid())}"
    parts = {"model": tensors.model} | ({} if tensors.training is None else {"optimizer": tensors.training})

    def begin() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_recipe(recipe, temporary / "recipe.yaml")
        if final is not None:
            save_recipe(final, temporary / FINAL)
        tokenizer.save(temporary / "tokenizer")

    def own_part() -> dict[str, Any]:
        written = [path for name, part in parts.items() for path in _save_part(part, temporary / name, world)]
        if together.is_rank0:
            written += [
                path for path in temporary.rglob("*") if path.is_file() and path.suffix != ".safetensors"
            ]
        for path in written:
            # safetensors makes files only their owner can read
            path.chmod((temporary / "recipe.yaml").stat().st_mode)
            _flush(path)
        return {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
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
        (temporary / "state.json").write_text(
            json.dumps(state, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        for path in [
            temporary / "state.json",
            *(path for path in temporary.iterdir() if path.is_dir()),
            temporary,
        ]:
            _flush(path)
        remove(folder)
        os.rename(temporary, folder)
        _flush(folder.parent)

    try:
        together.run_on_rank0(begin)
        files = {
            name: about
            for found in together.all_gather(together.run_on_all(own_part))
            for name, about in found.items()
        }
        together.run_on_rank0(lambda: finish(dict(sorted(files.items()))))
    except BaseException:
        if together.is_rank0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _save_part(tensors: dict[str, torch.Tensor], path: Path, world: World | None) -> list[Path]:
    """Write tensors as PATH.safetensors, or the parts this process holds into the folder PATH; the files
    written.
    """
    if world is not None:
        return sharded.save(tensors, path)
    _save_tensors(tensors, path.with_suffix(".safetensors"))
    return [path.with_suffix(".safetensors")]


def load_model(
    folder: Path, device: str | torch.device = "cpu"
) -> tuple[torch.nn.Module, Any, Recipe, dict[str, Any]]:
    """(model, tokenizer, recipe, state) of the checkpoint `folder`, the model on `device`.

    Raises UserError where there is no checkpoint, Failure where one is damaged.
    """
    from braingpt.model.lm import build

    folder = Path(folder)
    state = read_state(folder)
    verify(folder, state, (name for name in state["files"] if not name.startswith("optimizer")))
    try:
        recipe = load_recipe(folder / "recipe.yaml")
    except UserError as error:
        # as another version of braingpt wrote it
        raise UserError(
            f"{folder} holds a model that braingpt {__version__} does not know: {error}"
        ) from None
    model = build(recipe)
    load_weights(model, folder)
    return model.to(device), load_tokenizer(folder), recipe, state


def run_recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of the run that saved the checkpoint, with `overrides` laid over it: that of its last stage
    where the model grows.
    """
    final = Path(folder) / FINAL
    return load_recipe(final if final.is_file() else Path(folder) / "recipe.yaml", list(overrides))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that was saved with the checkpoint."""
    from braingpt.tokenizer import Tokenizer

    return Tokenizer.load(Path(folder) / "tokenizer")


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Fill `model` with the checkpoint's parameters and buffers.

    Raises Failure when they are another model's.
    """
    from braingpt.model.columns.two_four import unpacked_two_four

    path, kept = Path(folder) / "model", _distinct(model.state_dict())
    tensors = None if path.is_dir() else unpacked_two_four(_load_tensors(path.with_suffix(".safetensors")))
    found = (
        {name: about[0] for name, about in sharded.shapes(path).items()}
        if tensors is None
        else {n: t.shape for n, t in tensors.items()}
    )
    wrong = sorted(kept.keys() ^ found.keys()) or sorted(
        name for name in kept if kept[name].shape != found[name]
    )
    if wrong:
        raise Failure(f"{path} holds another model than its recipe.yaml describes: '{wrong[0]}' does not fit")
    with torch.no_grad():
        if tensors is None:
            sharded.load(kept, path)
        else:
            for name, value in tensors.items():
                assign_full(kept[name], value)


def load_training(
    model: torch.nn.Module, optimizer: Optimizers, folder: Path, average: Average | None = None
) -> None:
    """Put the optimizer's and the random generators' states back, and the trained weights where the
    checkpoint holds their `average`.

    Raises UserError for a checkpoint saved without them.
    """
    path, state = Path(folder) / "optimizer", read_state(folder)
    if not any(name.startswith("optimizer") for name in state["files"]):
        raise UserError(
            f"{folder} was saved for inference, without the optimizer's state; training cannot go on from it"
        )
    if path.is_dir():
        tensors = templates(model, sharded.shapes(path))
        sharded.load(tensors, path)
    else:
        tensors = _load_tensors(path.with_suffix(".safetensors"))
    trained = {
        name.removeprefix(TRAINED): tensors.pop(name) for name in list(tensors) if name.startswith(TRAINED)
    }
    if average is not None:
        average.restore(trained, state["averaged"])
    cpu, cuda = tensors.pop(RNG_CPU), tensors.pop(RNG_CUDA, None)
    try:
        unpack_state(model, optimizer, tensors)
    except ValueError as error:
        raise Failure(f"{path} does not belong to this model: {error}") from None
    torch.set_rng_state(cpu)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)


def read_state(folder: Path) -> dict[str, Any]:
    """The checkpoint's state.json. Raises UserError where there is none, Failure where it cannot be read."""
    path = Path(folder) / "state.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint (it has no state.json)")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        weights_hash(state), state["files"]["recipe.yaml"]["sha256"], int(state["step"]), int(state["tokens"])
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path} is damaged; take another checkpoint{_others(folder)}") from None
    if state.get("format") != FORMAT:
        raise UserError(
            f"{folder} has checkpoint format {state.get('format')}; braingpt {__version__} reads format {FORMAT}"
        )
    return state


def weights_hash(state: dict[str, Any]) -> str:
    """The SHA-256 of the model's file, or of the hashes of its parts; loading has compared them with the
    files.
    """
    hashes = [
        about["sha256"] for name, about in sorted(state["files"].items()) if re.match(r"model[./]", name)
    ]
    if not hashes:
        raise KeyError("model")
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def verify(folder: Path, state: dict[str, Any] | None = None, names: Iterable[str] | None = None) -> None:
    """Compare size and SHA-256 of the files `names` (all of them by default) with state.json; Failure names
    the first that differs.
    """
    folder = Path(folder)
    files = (state or read_state(folder))["files"]
    for name in names or files:
        path = folder / name
        if not path.is_file():
            raise Failure(f"{path} is missing; take another checkpoint{_others(folder)}")
        if path.stat().st_size != files[name]["bytes"] or _sha256(path) != files[name]["sha256"]:
            raise Failure(
                f"{path} is damaged: it is not the file that was saved; take another checkpoint{_others(folder)}"
            )


def _distinct(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` without the second names of tied tensors."""
    seen: set[tuple[int, torch.Size]] = set()
    kept = {}
    for name, tensor in state.items():
        rows = local_rows(tensor)
        key = (rows.data_ptr(), tensor.shape)
        if rows.numel() and key in seen:
            continue
        seen.add(key)
        kept[name] = tensor
    return kept


def _random_state() -> dict[str, torch.Tensor]:
    cuda = (
        {RNG_CUDA: torch.cuda.get_rng_state()}
        if torch.cuda.is_available() and torch.cuda.is_initialized()
        else {}
    )
    return {RNG_CPU: torch.get_rng_state(), **cuda}


def _on_cpu(tensors: dict[str, torch.Tensor], copied: bool) -> dict[str, torch.Tensor]:
    # written at once, by the library, which moves piece by piece
    if any(map(is_sharded, tensors.values())):
        return {name: tensor.detach() for name, tensor in tensors.items()}
    moved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    live = {tensor.data_ptr() for tensor in tensors.values()} if copied else set()
    return {name: tensor.clone() if tensor.data_ptr() in live else tensor for name, tensor in moved.items()}


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # the library turns the system's error into words
        code = re.search(r"os error (\d+)", str(error))
        raise (
            OSError(int(code[1]), os.strerror(int(code[1])), str(path))
            if code
            else Failure(f"cannot write {path}: {error}")
        ) from None


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Failure(f"cannot read {path}: {error}") from None


def _flush(path: Path) -> None:
    """Ask the system to bring a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems cannot flush a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _others(folder: Path) -> str:
    """Names an undamaged-looking neighbour of a damaged checkpoint."""
    others = [path for path in list_checkpoints(Path(folder).parent.parent) if path != Path(folder)]
    return f", like {others[-1]}" if others else ""
