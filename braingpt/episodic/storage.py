"""A memory as one safetensors file: tensors, and in the header texts and the hash of the model.

The file is complete or not written at all, and nothing is pickled. A file is refused when it has another
format, is damaged (a digest over everything is compared), or was made with another model: keys are states of
one set of weights and mean nothing to another.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from braingpt.episodic.gate import FEATURES, Gate
from braingpt.episodic.keys import KeyMaker
from braingpt.episodic.memory import EpisodicMemory
from braingpt.episodic.store import Store
from braingpt.errors import UserError
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.paths import shell_word

FORMAT = "braingpt-memory-1"
_Number = Annotated[int, Field(ge=1, lt=1 << 63)]


class _Head(BaseModel):
    """What the header of the file says."""

    model_config = ConfigDict(extra="forbid")

    weights: str
    about: dict[str, Any]
    texts: list[tuple[_Number, str]]
    last_number: Annotated[int, Field(ge=0, lt=1 << 63)]


def save_memory(memory: EpisodicMemory, path: Path) -> None:
    """Write a memory; an existing file keeps its content until the new one is complete.

    Args:
        memory: The memory.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    store = memory.store
    tensors = {
        "keys": store.keys_ND,
        "values": store.values_N,
        "owners": store.owners_M2,
        "mean": memory.maker.mean_D,
        "whitening": memory.maker.matrix_DD,
        "gate": memory.gate.weight_F,
        "temperature": memory.gate.temperature.view(1),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = [[number, text] for number, text in store.texts.items()]
    head = {
        "weights": memory.weights,
        "about": memory.about,
        "texts": texts,
        "last_number": store.last_number,
    }
    content = json.dumps(head, ensure_ascii=False)
    raw = save(tensors, metadata={"format": FORMAT, "content": content, "digest": _digest(tensors, content)})
    write_atomically(path, raw)


def load_memory(path: Path, weights: str | None = None) -> EpisodicMemory:
    """Read a memory.

    Args:
        path: The file.
        weights: SHA-256 of the weights of the model that will read the memory; None: no model will, as when
            texts are listed.

    Raises:
        UserError: The file does not exist, is not a memory, is damaged, or belongs to another model.
    """
    if not path.is_file():
        raise UserError(
            f"there is no memory file {path}; `braingpt memory add {shell_word(path)} TEXT` makes it"
        )
    again = "copy it again, or make one with `braingpt memory add`"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            # `file` is not a dictionary.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is damaged or not a memory file; {again}") from None
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a memory file of this version of braingpt "
            f"({about.get('format') or 'no format named'}); {again}"
        )
    if about.get("digest") != _digest(tensors, about.get("content", "")):
        raise UserError(f"{path} is damaged: it is not the file that was saved; {again}")
    try:
        head = _Head.model_validate_json(about["content"])
        memory = _memory(head, tensors)
    except ValidationError as error:
        first = error.errors()[0]
        reason = " ".join([".".join(map(str, first["loc"])), first["msg"]])
        raise UserError(f"{path} is damaged ({reason}); {again}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from None
    if weights is not None and head.weights != weights:
        made = ", ".join(str(value) for value in head.about.values())
        raise UserError(
            f"{path} belongs to another model ({made or head.weights[:12]}): "
            "a memory serves only the weights it was made with; choose that model's run"
        )
    return memory


def _memory(head: _Head, tensors: dict[str, Tensor]) -> EpisodicMemory:
    """The memory of a file's content. ValueError, in a few words, where the content makes none."""
    channels = tensors["mean"].numel() if "mean" in tensors else 0
    entries = len(tensors["values"]) if tensors.get("values", torch.zeros(())).dim() == 1 else 0
    wide = torch.float32
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "keys": ((entries, channels), torch.float16),
        "values": ((entries,), torch.int32),
        "owners": ((len(tensors.get("owners", ())), 2), torch.int64),
        "mean": ((channels,), wide),
        "whitening": ((channels, channels), wide),
        "gate": ((FEATURES,), wide),
        "temperature": ((1,), wide),
    }
    for name, (shape, dtype) in expected.items():
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"'{name}' is missing, or of another shape or type")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"'{name}' holds values that are no numbers")
    if len(tensors) > len(expected):
        raise ValueError(f"'{min(set(tensors) - set(expected))}' is unknown")
    owners_M2, texts = tensors["owners"], dict(head.texts)
    if len(texts) < len(head.texts) or max(texts, default=0) > head.last_number:
        raise ValueError("the numbers of its texts do not agree")
    if len(owners_M2):
        entry_M, number_M = owners_M2.unbind(1)
        if entry_M.min() < 0 or entry_M.max() >= entries or not set(number_M.tolist()) <= set(texts):
            raise ValueError("its entries belong to no text")
    if entries and (tensors["values"].min() < 0 or len(owners_M2[:, 0].unique()) < entries):
        raise ValueError("its entries belong to no text")
    store = Store(channels)
    store.keys_ND, store.values_N, store.owners_M2 = tensors["keys"], tensors["values"], owners_M2
    store.texts, store.last_number = texts, head.last_number
    gate = Gate(tensors["gate"], tensors["temperature"][0])
    return EpisodicMemory(
        head.weights, KeyMaker(tensors["mean"], tensors["whitening"]), gate, store, head.about
    )


def _digest(tensors: dict[str, Tensor], content: str) -> str:
    """SHA-256 of every name, shape and byte."""
    digest = hashlib.sha256(content.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel():
            digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()
