"""Where a run computes and in which precision, and how fast the device multiplies."""

import time
from contextlib import AbstractContextManager, nullcontext

import torch

from braingpt.errors import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device that a user names.

    Args:
        name: "cpu", "cuda" or "cuda:1"; "auto" and None take a GPU where there is one. A GPU named by number
            becomes the current one, which events, Triton and queries of the hardware use.

    Raises:
        UserError: The device is unknown or not on this machine.
    """
    if name is None or name == "auto":
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
        gpus = torch.cuda.device_count()
        raise UserError(f"there is no device '{name}'; this machine has {gpus} GPU(s), counted from cuda:0")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def autocast_dtype(dtype: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where products run in it, None for plain float32; `dtype` is a recipe's `train.dtype`."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and native) else None


def autocast(
    device: torch.device, dtype: torch.dtype | None, cached: bool = True
) -> AbstractContextManager[object]:
    """A new autocast context, or one that does nothing; `cached` keeps cast weights until it ends."""
    return torch.autocast(device.type, dtype=dtype, cache_enabled=cached) if dtype else nullcontext()


def matmul_flops(device: torch.device, dtype: torch.dtype | None) -> float:
    """Floating-point operations a second of square matrix products, the best of five.

    Shares of the measured matmul speed refer to this.
    """
    # Large enough for waiting on the device to take no part in the time.
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=dtype or torch.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        # Reading a number waits for the device.
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out; torch has a class of error for a GPU, and only a message for a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
