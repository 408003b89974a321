"""How much memory is available, on a GPU or on this machine, and what sets the limit."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


class Available(NamedTuple):
    """Bytes available, and where the number comes from, in words."""

    bytes: int
    source: str


def free_memory(device: torch.device) -> int:
    """Bytes available on the device; `available_memory` says why not more."""
    return available_memory(device).bytes


def available_memory(device: torch.device) -> Available:
    """The memory available on the device: free on the GPU, or on the machine within the container's limits.

    On a GPU what this process has reserved does not count, and its memory fraction is respected. On a CPU the
    least of these counts: the machine's available memory, the limits of this process's control groups and of
    those above them (versions 1 and 2), and the limit on its address space (`ulimit -v`).
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        fraction = torch.cuda.get_per_process_memory_fraction(device.index)
        allowed = int(fraction * total) - torch.cuda.memory_reserved(device)
        if allowed < free:
            return Available(max(0, allowed), "this process's share of the GPU")
        return Available(free, "free on the GPU")
    return min((found for found in _host_limits() if found.bytes >= 0), key=lambda found: found.bytes)


def _host_limits() -> Iterator[Available]:
    """Every bound on the memory of this process."""
    # Linux has the file; elsewhere half of the machine's memory is the estimate.
    try:
        lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        yield Available(free, "free on this machine")
    except (OSError, StopIteration):
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Available(pages // 2, "half of this machine's memory")
    for group, limit, used, reclaimed in _control_groups():
        # There is no limit where the file is absent, or holds "max", which is no integer.
        with suppress(OSError, ValueError):
            bound, taken = (int((group / name).read_text()) for name in (limit, used))
            # Pages of files that are read again from the disk where memory is short.
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield Available(
                max(0, bound - taken + int(statistics.get(reclaimed, 0))), "the container's limit (cgroup)"
            )
    bound, _ = resource.getrlimit(resource.RLIMIT_AS)
    if bound != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError):
            pages = int((PROC / "self" / "statm").read_text().split()[0])
            taken = pages * os.sysconf("SC_PAGE_SIZE")
            yield Available(max(0, bound - taken), "the limit on the address space (ulimit -v)")


def _control_groups() -> Iterator[tuple[Path, str, str, str]]:
    """This process's groups of memory and those above, with the names of their limit, use and file pages."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers == "":
            root = CGROUPS
            limit, used, files = "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            files = "total_inactive_file"
        else:
            continue
        # Inside a container the own group is the root, or begins with `/..`.
        inside = root / re.sub(r"^(/\.\.)+", "", place).lstrip("/")
        for group in (inside, *inside.parents):
            yield group, limit, used, files
            if group == root:
                break
