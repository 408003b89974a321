"""How many bytes can still be taken, on the GPU or on this machine within its container's limit."""

import os
from contextlib import suppress
from pathlib import Path

import torch


def free_memory(device: torch.device) -> int:
    """Bytes that could still be taken on `device`: the GPU's free ones, or the machine's within the
    container's limit.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allowed = torch.cuda.get_per_process_memory_fraction(
            device.index
        ) * total - torch.cuda.memory_reserved(device)
        return max(0, min(free, int(allowed)))
    # Linux
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        # "max" where there is no limit
        with suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            free = min(
                free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
            )
        return max(0, free)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
