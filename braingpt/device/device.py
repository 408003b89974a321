"""What a run needs before its first step: a device, a precision, and a forward pass, compiled or not."""

import time
from contextlib import AbstractContextManager, nullcontext

import torch

from braingpt.errors import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); "auto" and None take a GPU where there is one.

    UserError where it is missing.

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
        raise UserError(
            "there is no usable NVIDIA GPU here (`braingpt doctor` says more); --device cpu works everywhere"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{name}' is not there; this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0"
        )
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def autocast_dtype(dtype: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where products are to run in it, None for plain float32. `dtype`: a recipe's `train.dtype`."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and native) else None


def autocast(
    device: torch.device, dtype: torch.dtype | None, cached: bool = True
) -> AbstractContextManager[None]:
    """A fresh autocast context, or one that does nothing. `cached`: weights once cast are kept to its end."""
    return torch.autocast(device.type, dtype=dtype, cache_enabled=cached) if dtype else nullcontext()


def matmul_flops(device: torch.device, dtype: torch.dtype | None) -> float:
    """Floating-point operations a second of square matrix products here, the best of five: what a share of
    the peak refers to.
    """
    # large enough for the wait not to count
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=dtype or torch.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        # waits for the device
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocator gave up: torch has a class for a GPU's, words for a CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
