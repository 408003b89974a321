"""What this machine can do at most: bytes and floating-point operations a second, measured, not read off a
data sheet.
"""

import torch

from braingpt.bench.clock import ColdClock, Work
from braingpt.device.device import matmul_flops

# of a buffer: many times the last cache
BYTES = {"cuda": 1 << 30, "cpu": 256 << 20}
TRIES = 5


def bandwidth(device: torch.device) -> dict[str, float]:
    """Bytes a second, the best of five: "read" (a sum over a large buffer) and "copy" (read and written bytes
    together).
    """
    clock, numbers = ColdClock(device), BYTES[device.type] // 4
    source, target = (torch.ones(numbers, device=device) for _ in range(2))
    works: dict[str, tuple[Work, int]] = {"read": (source.sum, 1), "copy": (lambda: target.copy_(source), 2)}
    return {
        name: buffers * BYTES[device.type] / min(clock(work) for _ in range(TRIES + 1))
        for name, (work, buffers) in works.items()
    }


def limits(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """{"bytes_per_second": the better of reading and copying, "read_bytes_per_second",
    "copy_bytes_per_second", "flops": of products in dtype}.
    """
    by_kind = bandwidth(device)
    return {
        "bytes_per_second": max(by_kind.values()),
        **{f"{name}_bytes_per_second": value for name, value in by_kind.items()},
        "flops": matmul_flops(device, dtype),
    }
