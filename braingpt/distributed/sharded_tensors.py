"""Tensors of which each process holds some rows, as FSDP leaves a model's weights between two steps (torch's
DTensor, sharded on dimension 0).

Every function takes ordinary tensors as well, which are whole on one process, and then does nothing. So what
reads and writes weights beside the forward pass (masks, revived columns, Muon, averages, checkpoints) is
written once.
"""

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part only. (By its method: importing DTensor takes a second.)"""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows, on every process. All must call this together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_rows(tensor: Tensor) -> Tensor:
    """The rows this process holds, to be read or written in place."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def own_rows(value: Tensor, like: Tensor) -> Tensor:
    """Of a `value` that is whole here, the rows that this process holds of `like`."""
    if not is_sharded(like):
        return value
    chunks, mine = value.chunk(like.device_mesh.size()), like.device_mesh.get_local_rank()
    return chunks[mine] if mine < len(chunks) else value[:0]


def sharded_like(rows: Tensor, like: Tensor) -> Tensor:
    """What the processes' `rows` are together: a tensor of `like`'s shape, sharded as it is."""
    if not is_sharded(like):
        return rows
    from torch.distributed.tensor import DTensor

    layout = {"shape": like.shape, "stride": like.stride(), "run_check": False}
    return DTensor.from_local(rows, like.device_mesh, like.placements, **layout).to(rows.device)


def assign_full(target: Tensor, value: Tensor) -> None:
    """Write a `value` that is whole here, or sharded alike, into `target`; nothing where it is `target`
    itself.
    """
    if value is not target:
        local_rows(target).copy_(local_rows(value) if is_sharded(value) else own_rows(value, target))
