"""Several processes that train one model: `torchrun --nproc-per-node 4 -m braingpt train ...` is the same
command as for one.

Each process reads its rows of every step. With `train.parallel: ddp` it holds the whole model, and torch's
DistributedDataParallel averages the gradients while they are made. With `fsdp` weights, gradients and moments
are spread over the processes (FSDP2: `fully_shard`, Zhao et al. 2023, arXiv 2304.11277), and a block's
weights are together only while it computes; with `train.offload` they rest in the host's memory, which serves
a single GPU as well. What else must agree is summed: the loss, what the forward pass counts into buffers,
whether somebody ran out of memory or was asked to stop. Then guard, optimizer and controllers do the same
everywhere, and the first process alone speaks.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from braingpt.errors import Failure, UserError

T, E = TypeVar("T"), TypeVar("E", bound=Exception)
# in the words of the backends when another process is gone
LOST = ("onnection", "Broken pipe", "remote process")


class World:
    """The processes of a run. With one, every method does nothing but `wrap`."""

    def __init__(self, rank: int = 0, size: int = 1, sharded: bool = False, offload: bool = False) -> None:
        self.rank, self.size, self.sharded, self.offload = rank, size, sharded, offload

    @property
    def is_rank0(self) -> bool:
        """Whether this is the first process, the one that writes files and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model on its device, with averaged gradients.

        Buffers are left alone: they are summed when a step is over.
        """
        if self.sharded:
            return _sharded(model, device, self.size, self.offload)
        model.to(device)
        if self.size == 1:
            return model
        ids = [device.index or 0] if device.type == "cuda" else None
        # may pass over a weight in a step; looking for such warns where none is
        choosing = model.config.architecture != "dense"
        with warnings.catch_warnings():
            # its name from torch 2.13 on does not exist in 2.11
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=choosing
            )

    def accumulating(self, forward: Any, last: bool) -> AbstractContextManager[None]:
        """Around all pieces of a step but the `last`: gradients stay here.

        Sharded ones are spread piece by piece, or they would not fit.
        """
        return forward.no_sync() if self.size > 1 and not self.sharded and not last else nullcontext()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_changes(self, before: list[tuple[Tensor, Tensor]]) -> None:
        """Give each (buffer, former value) the changes of all processes together."""
        if self.size > 1:
            for buffer, value in before:
                buffer.copy_(value + self.all_reduce(buffer - value))

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        found = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: Any) -> Any:
        """The first process's value, everywhere."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def run_on_all(self, work: Callable[[], T]) -> T:
        """`work()`; an error of one process that a person is told of is raised by all, so that none waits for
        the others in vain.
        """
        done, error = None, None
        try:
            done = work()
        except (UserError, Failure, OSError) as failed:
            error = failed
        errors = self.all_gather(error)
        first = next((rank for rank, failed in enumerate(errors) if failed), None)
        if first is None:
            return done
        raise _said(error if first == self.rank else errors[first], elsewhere=first != self.rank)

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """What `work()` of the first process gives, everywhere; an error of it is raised by all."""
        return self.broadcast(self.run_on_all(lambda: work() if self.is_rank0 else None))

    def agree_on_error(self, error: E) -> E:
        """An error that all processes raise, to be said by the first."""
        return _said(error, elsewhere=not self.is_rank0)

    def barrier(self) -> None:
        """Block until every rank has arrived."""
        if self.size > 1:
            dist.barrier()


def _said(error: E, elsewhere: bool) -> E:
    # for `cli.console.guarded`
    error.said = elsewhere
    return error


def _sharded(model: nn.Module, device: torch.device, size: int, offload: bool) -> nn.Module:
    """The same model, block by block and the rest as one group.

    Products are cast by autocast: what must be float32 stays so.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh(device.type, (size,))
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    for part in (*model.blocks, model):
        fully_shard(part, mesh=mesh, offload_policy=policy)
    for module in model.modules():
        # it would keep whole what is shared out
        if hasattr(module, "keeps"):
            module.keeps = False
    return model


def rank_of_environment(name: str = "RANK") -> int:
    """This process's number as torchrun gives it, or with LOCAL_RANK its number on this machine; 0 where
    there is none.
    """
    return int(os.environ.get(name, 0))


@contextmanager
def join_world(
    device: torch.device, parallel: str, offload: bool = False
) -> Iterator[tuple[World, torch.device]]:
    """This process's world and device, as torchrun's environment says; one process without it.

    A process group that is there already is used and left: torchrun's store serves one only.
    """
    ours, sharded = not dist.is_initialized(), parallel == "fsdp"
    size = int(os.environ.get("WORLD_SIZE", 1)) if ours else dist.get_world_size()
    if size == 1 and not sharded:
        yield World(), device
        return
    if device.type == "cuda":
        if (here := int(os.environ.get("LOCAL_WORLD_SIZE", 1))) > torch.cuda.device_count():
            raise UserError(
                f"{here} processes are more than this machine's {torch.cuda.device_count()} GPU(s); torchrun --nproc-per-node takes fewer"
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    if ours:
        store, rank, size = (
            next(dist.rendezvous("env://")) if "WORLD_SIZE" in os.environ else (dist.HashStore(), 0, 1)
        )
        # torchrun keeps one store for all its restarts: gloo would wait for the dead
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    world = World(dist.get_rank(), size, sharded, offload)
    try:
        yield world, device
    except UserError as error:
        # what only one meets has been agreed on
        if not hasattr(error, "said"):
            world.agree_on_error(error)
        raise
    except RuntimeError as error:
        if size > 1 and not isinstance(error, Failure) and any(word in str(error) for word in LOST):
            raise world.agree_on_error(
                Failure("another process of this run has ended, and with it the run")
            ) from error
        raise
    finally:
        if ours:
            dist.destroy_process_group()
