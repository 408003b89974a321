"""The limits of this machine, measured instead of read off a data sheet: bytes and floating-point operations
a second.
"""

import torch

from braingpt.bench.clock import ColdClock, Work
from braingpt.device.device import matmul_flops

# Bytes of a buffer: many times the last cache.
BUFFER_BYTES = {"cuda": 1 << 30, "cpu": 256 << 20}
# Calls, the best of which counts.
TRIES = 5


def bandwidth(device: torch.device) -> dict[str, float]:
    """Bytes a second: "read" is a sum over a large buffer, "copy" counts bytes read and bytes written."""
    clock, numbers = ColdClock(device), BUFFER_BYTES[device.type] // 4
    source, target = (torch.ones(numbers, device=device) for _ in range(2))
    works: dict[str, tuple[Work, int]] = {"read": (source.sum, 1), "copy": (lambda: target.copy_(source), 2)}
    return {
        name: buffers * BUFFER_BYTES[device.type] / min(clock(work) for _ in range(TRIES + 1))
        for name, (work, buffers) in works.items()
    }


def limits(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The limits of a device.

    Returns:
        "read_bytes_per_second", "copy_bytes_per_second", the better of the two as "bytes_per_second", and
        "flops": floating-point operations a second in products of `dtype`.
    """
    by_kind = bandwidth(device)
    return {
        "bytes_per_second": max(by_kind.values()),
        **{f"{name}_bytes_per_second": value for name, value in by_kind.items()},
        "flops": matmul_flops(device, dtype),
    }
