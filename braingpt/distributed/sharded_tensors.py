"""Tensors of which each rank holds some rows, as FSDP keeps a model's weights between two steps.

They are torch's DTensor, sharded on dimension 0.
Every function takes ordinary tensors as well, which are whole on one process, and then does nothing.
So code that reads and writes weights beside the forward pass (masks, revived columns, Muon, averages,
checkpoints) is written once.
"""

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether this rank holds only some of the rows."""
    # Asked by the method, because importing DTensor takes a second.
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows, on every rank; all ranks must call this together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_rows(tensor: Tensor) -> Tensor:
    """The rows this rank holds, which may be read and written in place."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def own_rows(value: Tensor, like: Tensor) -> Tensor:
    """Of a `value` that is whole on this rank, the rows that this rank holds of `like`."""
    if not is_sharded(like):
        return value
    chunks, rank = value.chunk(like.device_mesh.size()), like.device_mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else value[:0]


def sharded_like(rows: Tensor, like: Tensor) -> Tensor:
    """The tensor of as many rows as `like`, sharded alike, whose local rows are each rank's `rows`."""
    if not is_sharded(like):
        return rows
    import torch
    from torch.distributed.tensor import DTensor

    shape = torch.Size((len(like), *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    sharded = DTensor.from_local(
        rows, like.device_mesh, like.placements, shape=shape, stride=stride, run_check=False
    )
    return sharded.to(rows.device)


def assign_full(target: Tensor, value: Tensor) -> None:
    """Write `value`, whole on this rank or sharded like `target`, into `target` (which may be `value`)."""
    if value is not target:
        local_rows(target).copy_(local_rows(value) if is_sharded(value) else own_rows(value, target))
