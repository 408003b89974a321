"""What a run needs before its first step: a device, a precision, and a forward pass, compiled or not."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from braingpt.errors import UserError
from braingpt.recipes import TrainConfig


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); "auto" and None take a GPU where there is one. UserError where it is missing.

    A GPU named by number becomes the current one: events, Triton and questions about the hardware go to that.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}'; it is cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}' is not supported; it is cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no usable NVIDIA GPU here (`braingpt doctor` says more); --device cpu works everywhere")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' is not there; this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def flush_denormals() -> None:
    """Treat numbers below 1e-38 as zero on the CPU, from now on. In the head's gradient they made a step up to ten times slower.

    The flag belongs to a thread and is inherited by the threads it starts: set it before torch first computes in parallel.
    """
    torch.set_flush_denormal(True)


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors free, for the next ones, from now on; glibc only, elsewhere it does nothing.

    malloc hands large blocks back at once, and every step paid for the same pages again: a million page faults in sixty steps of a small model.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, Windows, musl
        return
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 64 * 2**20)


def settle_cpu() -> None:
    """What every command that computes does first: `flush_denormals` and `keep_freed_memory`."""
    flush_denormals()
    keep_freed_memory()


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """`flush_denormals` for the time of the `with`, so that a library call does not change its caller's arithmetic."""
    flushed_before = bool(torch.tensor(1e-39, dtype=torch.float32).mul(1.0) == 0)
    flush_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """bfloat16 where products are to run in it, None for plain float32."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if config.dtype == "bfloat16" or (config.dtype == "auto" and native) else None


def autocast(device: torch.device, dtype: torch.dtype | None, cached: bool = True) -> AbstractContextManager[None]:
    """A fresh autocast context, or one that does nothing. `cached`: weights once cast are kept to its end."""
    return torch.autocast(device.type, dtype=dtype, cache_enabled=cached) if dtype else nullcontext()


def recomputing(model: torch.nn.Module) -> None:
    """Let each block keep its input alone and compute the rest again in the backward pass, from now on: less memory, a third more work."""
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn in a block


def matmul_flops(device: torch.device, dtype: torch.dtype | None) -> float:
    """Floating-point operations a second of square matrix products here, the best of five: what a share of the peak refers to."""
    size = 8192 if device.type == "cuda" else 1024  # large enough for the wait not to count
    matrix = torch.randn(size, size, device=device, dtype=dtype or torch.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocator gave up: torch has a class for a GPU's, words for a CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
