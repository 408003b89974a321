"""How much memory is available, on a GPU or on this machine."""

import os
from contextlib import suppress
from pathlib import Path

import torch


def free_memory(device: torch.device) -> int:
    """Bytes available on the device: free on the GPU, or on the machine within the container's limit.

    On a GPU what this process has reserved does not count, and its memory fraction is respected.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        fraction = torch.cuda.get_per_process_memory_fraction(device.index)
        allowed = fraction * total - torch.cuda.memory_reserved(device)
        return max(0, min(free, int(allowed)))
    # Linux has both files; elsewhere half of the machine's memory is the estimate.
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        # The limit is "max" where there is none, which is no integer.
        with suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            free = min(free, limit - used)
        return max(0, free)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
