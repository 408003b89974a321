"""Training one model on several processes.

`torchrun --nproc-per-node 4 -m braingpt train ...` is the same command as for one process.
Each process (rank) reads its rows of every step.

With `train.parallel: ddp` each rank holds the whole model, and torch's DistributedDataParallel averages the
gradients while they are computed.
With `fsdp` weights, gradients and moments are sharded over the ranks, and a block's weights are together only
while the block computes (FSDP2: `fully_shard`, Zhao et al. 2023, arXiv 2304.11277).
With `train.offload` the shards stay in the host's memory, which serves a single GPU as well.

What else must agree is summed: the loss, what the forward pass counts into buffers, whether a rank ran out of
memory or was asked to stop.
Then the guard, the optimizer and the controllers do the same on every rank, and only rank 0 prints.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore, PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]
from torch.nn.parallel import DistributedDataParallel

from braingpt.errors import Failure, UserError, mark_reported, reported_elsewhere

if TYPE_CHECKING:
    from braingpt.model.lm import LanguageModel

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
# In the backends' messages when another process is gone.
CONNECTION_LOST = ("onnection", "Broken pipe", "remote process")


class World:
    """The ranks of a run. With a single rank only `wrap` does anything.

    Args:
        rank: This process's number.
        size: How many ranks there are.
        sharded: Whether weights are sharded over the ranks (FSDP).
        offload: Whether shards stay in the host's memory.
    """

    def __init__(self, rank: int = 0, size: int = 1, sharded: bool = False, offload: bool = False) -> None:
        self.rank, self.size, self.sharded, self.offload = rank, size, sharded, offload

    @property
    def is_rank0(self) -> bool:
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0

    def wrap(self, model: "LanguageModel", device: torch.device) -> nn.Module:
        """The model on its device, with averaged gradients.

        Buffers are left alone, because they are summed when a step is over.
        """
        if self.sharded or self.size > 1:
            # Processes exchange dense gradients.
            for module in model.modules():
                if hasattr(module, "sparse_gradient"):
                    module.sparse_gradient = False  # pyright: ignore[reportArgumentType]
        if self.sharded:
            return _fully_sharded(model, device, self.size, self.offload)
        model.to(device)
        if self.size == 1:
            return model
        ids = [device.index or 0] if device.type == "cuda" else None
        # A sparse model may leave a weight unused in a step. DDP warns if it searches and finds none.
        is_sparse = model.config.architecture != "dense"
        with warnings.catch_warnings():
            # torch 2.13 deprecates this argument's name, and the new name does not exist in 2.11.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=is_sparse
            )

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """A context for each micro-batch of a step: gradients stay on this rank until the `last`.

        Sharded gradients are reduced after each micro-batch, because unsharded gradients would not fit.

        Args:
            wrapped: The model as `wrap` returned it.
            last: Whether it is the step's last micro-batch.
        """
        return (
            wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) and not last else nullcontext()
        )

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_changes(self, before: list[tuple[Tensor, Tensor]]) -> None:
        """Give each (buffer, former value) in `before` its former value plus the changes of all ranks."""
        if self.size > 1:
            for buffer, value in before:
                buffer.copy_(value + self.all_reduce(buffer - value))

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def run_on_all(self, work: Callable[[], T]) -> T:
        """`work()` on this rank.

        Raises one rank's UserError, Failure or OSError on all ranks, so that no rank waits for the others in
        vain.
        """
        result: list[T] = []
        error = None
        try:
            result.append(work())
        except (UserError, Failure, OSError) as raised:
            error = raised
        errors = self.all_gather(error)
        for rank, other in enumerate(errors):
            if other is not None:
                is_mine = rank == self.rank
                raise mark_reported(error if is_mine and error else other, elsewhere=not is_mine)
        return result[0]

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """Rank 0's `work()`, on every rank; its error is raised on all ranks."""
        result = self.run_on_all(lambda: [work()] if self.is_rank0 else [])
        return self.broadcast(result)[0]

    def agree_on_error(self, error: E) -> E:
        """Mark an error that all ranks raise, so that rank 0 alone reports it."""
        return mark_reported(error, elsewhere=not self.is_rank0)

    def barrier(self) -> None:
        """Block until every rank has arrived."""
        if self.size > 1:
            dist.barrier()


def _fully_sharded(model: "LanguageModel", device: torch.device, size: int, offload: bool) -> nn.Module:
    """The model sharded block by block, with everything else as one group.

    Autocast casts the products, so what must be float32 stays float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh(device.type, (size,))
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh, offload_policy=policy)
    for module in model.modules():
        # A module that caches derived weights would keep them whole on every rank.
        if hasattr(module, "keeps"):
            module.keeps = False  # pyright: ignore[reportArgumentType]
    return model


def rank_of_environment(name: str = "RANK") -> int:
    """This process's rank from torchrun, or with LOCAL_RANK its rank on this machine; 0 without torchrun."""
    return int(os.environ.get(name, 0))


@contextmanager
def join_world(
    device: torch.device, parallel: str, offload: bool = False
) -> Iterator[tuple[World, torch.device]]:
    """This process's world and device, from torchrun's environment; a single rank without it.

    A process group that exists already is used and not ended, because torchrun's store serves only one.

    Args:
        device: The device the user asked for; with several GPUs each rank takes its own.
        parallel: "ddp" or "fsdp", a recipe's `train.parallel`.
        offload: A recipe's `train.offload`.

    Raises:
        UserError: There are more processes than GPUs.
        Failure: Another process of the run has ended.
    """
    ours, sharded = not dist.is_initialized(), parallel == "fsdp"
    size = int(os.environ.get("WORLD_SIZE", 1)) if ours else dist.get_world_size()
    if size == 1 and not sharded:
        yield World(), device
        return
    if device.type == "cuda":
        processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if processes > gpus:
            raise UserError(
                f"{processes} processes are more than this machine's {gpus} GPU(s); "
                "use a smaller --nproc-per-node"
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", device.index or 0)))
        torch.cuda.set_device(device)
    if ours:
        size = _start_process_group(device)
    world = World(dist.get_rank(), size, sharded, offload)
    try:
        yield world, device
    except UserError as error:
        # An error that only one rank meets has been agreed on in `run_on_all`.
        if reported_elsewhere(error) is None:
            world.agree_on_error(error)
        raise
    except RuntimeError as error:
        if (
            size > 1
            and not isinstance(error, Failure)
            and any(word in str(error) for word in CONNECTION_LOST)
        ):
            ended = Failure(
                "another process of this run has ended, so the run ends; "
                "--resume auto continues from its last checkpoint"
            )
            raise world.agree_on_error(ended) from error
        raise
    finally:
        if ours:
            dist.destroy_process_group()


def _start_process_group(device: torch.device) -> int:
    """Start torch's process group from torchrun's environment; returns the number of ranks."""
    store, rank, size = HashStore(), 0, 1
    if "WORLD_SIZE" in os.environ:
        store, rank, size = next(rendezvous("env://"))
    # torchrun keeps one store for all its restarts, in which gloo would wait for processes that have ended.
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    return size
