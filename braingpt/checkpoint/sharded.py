"""Sharded tensors on disk: each process writes its parts, and any number of processes reads them again.

    model/shard-00001-model-00001-of-00001.safetensors    the parts of process 0

Each file says where in the full tensors its parts begin. torch.distributed.checkpoint does the work, with
its safetensors format: nothing is pickled, and each process reads only the slices that it needs.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from braingpt.errors import Failure

# torch.distributed.checkpoint takes a second to import, and most commands never need it: its imports are
# late.
if TYPE_CHECKING:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader


def save(tensors: dict[str, Tensor], folder: Path) -> list[Path]:
    """Write tensors into a new folder, all processes together.

    Args:
        tensors: Sharded tensors, and ordinary ones, which are equal on all processes and written once.
        folder: The folder, on a file system that the processes share.

    Returns:
        The files that this process has written.

    Raises:
        OSError: A process could not write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_together

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _quiet():
            save_together(dict(tensors), storage_writer=writer, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise _disk_error(error, folder) from None
    rank = dist.get_rank() if dist.is_initialized() else 0
    return sorted(folder.glob(f"shard-{rank + 1:05}-*"))


def load(into: dict[str, Tensor], folder: Path) -> None:
    """Fill tensors from the files in a folder: whole tensors, or this process's parts of sharded ones.

    Raises Failure where the folder cannot be read.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load as load_together

    try:
        with _quiet():
            load_together(dict(into), storage_reader=_reader(folder), no_dist=not dist.is_initialized())
    except (CheckpointException, SafetensorError, OSError, RuntimeError) as error:
        raise Failure(f"cannot read {folder}: {_first_line(error)}") from None


def shapes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Full shape and type of each tensor in a folder. Raises Failure where the folder cannot be read."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        metadata = _reader(folder).read_metadata().state_dict_metadata
    except (SafetensorError, OSError) as error:
        raise Failure(f"cannot read {folder}: {_first_line(error)}") from None
    return {
        name: (about.size, about.properties.dtype)
        for name, about in metadata.items()
        if isinstance(about, TensorStorageMetadata)
    }


def _reader(folder: Path) -> "HuggingFaceStorageReader":
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(folder))


def _disk_error(error: "CheckpointException", folder: Path) -> Exception:
    """The system's error among those that the library collected from all processes."""
    causes = [failure[0] for failure in error.failures.values()]
    for cause in causes:
        if isinstance(cause, OSError):
            return OSError(cause.errno, os.strerror(cause.errno or errno.EIO), str(folder))
    return Failure(f"cannot write {folder}: {_first_line(causes[0] if causes else error)}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings that a single process saves and loads alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
