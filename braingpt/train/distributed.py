"""Several processes that train one model: `torchrun --nproc-per-node 4 -m braingpt train ...` is the same command as for one.

Each process reads its rows of every step and holds the whole model; torch's DistributedDataParallel averages the gradients while they are
made. What else must agree is summed: the loss, what the forward pass counts into buffers, and whether somebody was asked to stop. Then guard,
optimizer and controllers do the same everywhere, and the first process alone writes, validates and speaks.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class World:
    """The processes of a run. With one, every method does nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def wrapped(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with averaged gradients. Buffers are left alone: they are summed when a step is over."""
        if self.size == 1:
            return model
        ids = [device.index or 0] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its name from torch 2.13 on does not exist in 2.11
            return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True)

    def collecting(self, forward: Any, last: bool) -> AbstractContextManager[None]:
        """Around all pieces of a step but the `last`: gradients stay here."""
        return forward.no_sync() if self.size > 1 and not last else nullcontext()

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_changes(self, before: list[tuple[Tensor, Tensor]]) -> None:
        """Give each (buffer, former value) the changes of all processes together."""
        if self.size > 1:
            for buffer, value in before:
                buffer.copy_(value + self.summed(buffer - value))

    def told(self, value: Any) -> Any:
        """The first process's value, everywhere."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def rank_of_environment() -> int:
    """This process's number as torchrun gives it, 0 where there is none."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """This process's world and device, as torchrun's environment says; one process without it."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
