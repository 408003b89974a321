"""The machine that figures were measured on: processor, threads, GPU, memory, versions."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import torch


def machine() -> dict[str, str | int | None]:
    """Names and numbers of this machine, for reports. Memory is in bytes; None where not known."""
    gpu = torch.cuda.is_available()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        if gpu
        else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Memory this process may use: the machine's, or its container's where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        # The file says "max" where there is no limit.
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total
    return min(total, limit)


def resident_bytes(peak: bool = False) -> int:
    """Bytes that this process holds now; with `peak`, the most it held since `forget_peak`.

    Linux keeps the peak of getrusage across exec, so a child would start with its parent's; VmHWM belongs to
    the program alone.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:" if peak else "VmRSS:"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Start the peak again from the memory in use now, where the system allows it (Linux's clear_refs).

    Memory that was freed but kept returns to the system first (glibc's malloc_trim), because reused memory
    would not be counted.
    """
    # macOS, Windows and musl have no malloc_trim.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
