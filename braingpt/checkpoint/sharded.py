"""Tensors that several processes hold parts of, on disk: each writes its own, and any number of processes
reads them again.

    model/shard-00001-model-00001-of-00001.safetensors    the parts of process 0; each file says where in the
    whole its parts begin

torch.distributed.checkpoint does the work, with its safetensors format: nothing is pickled, and each process
reads only the slices it needs.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from braingpt.errors import Failure


def save(tensors: dict[str, Tensor], folder: Path) -> list[Path]:
    """Write `tensors` into the new `folder`, all processes together; ordinary tensors, which all have alike,
    once. This process's files.

    Raises OSError where one of the processes could not write.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    from torch.distributed.checkpoint import save as save_together
    from torch.distributed.checkpoint.api import CheckpointException

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _quiet():
            save_together(dict(tensors), storage_writer=writer, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise _disk_error(error, folder) from None
    rank = dist.get_rank() if dist.is_initialized() else 0
    return sorted(folder.glob(f"shard-{rank + 1:05}-*"))


def load(into: dict[str, Tensor], folder: Path) -> None:
    """Fill the tensors `into` from the files in `folder`: whole ones, or this process's parts.

    Raises Failure where it cannot be read.
    """
    from torch.distributed.checkpoint import load as load_together
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with _quiet():
            load_together(dict(into), storage_reader=_reader(folder), no_dist=not dist.is_initialized())
    except (CheckpointException, SafetensorError, OSError, RuntimeError) as error:
        raise Failure(f"cannot read {folder}: {_first_line(error)}") from None


def shapes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape, as a whole, and type of each tensor in `folder`. Raises Failure where it cannot be read."""
    try:
        found = _reader(folder).read_metadata().state_dict_metadata
    except (SafetensorError, OSError) as error:
        raise Failure(f"cannot read {folder}: {_first_line(error)}") from None
    return {name: (about.size, about.properties.dtype) for name, about in found.items()}


# -> torch.distributed.checkpoint.HuggingFaceStorageReader
def _reader(folder: Path):
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(folder))


def _disk_error(error: Exception, folder: Path) -> Exception:
    """The system's error behind what the library collected of all processes."""
    causes = [failure[0] for failure in error.failures.values()]
    for cause in causes:
        if isinstance(cause, OSError):
            return OSError(cause.errno, os.strerror(cause.errno or errno.EIO), str(folder))
    return Failure(f"cannot write {folder}: {_first_line(causes[0] if causes else error)}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's remarks that a single process saves and loads alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
