"""CPU settings of a process that computes: denormals are flushed, and freed memory is kept."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flush_denormals() -> None:
    """Treat numbers below 1e-38 as zero on the CPU, from now on.

    Such numbers in the head's gradient made a step up to ten times slower.
    The flag belongs to a thread, and threads that it starts inherit the flag: call this before torch first
    computes in parallel.
    """
    torch.set_flush_denormal(True)


def keep_freed_memory() -> None:
    """Keep the memory that tensors free for the next tensors, from now on; without glibc nothing happens.

    By default malloc returns large blocks to the system at once, and every step pays for the same pages
    again: a million page faults in sixty steps of a small model.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        # macOS, Windows and musl have no mallopt.
        return
    # Numbers of the options, from malloc.h.
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 64 * 2**20)


def configure_cpu() -> None:
    """Set both options; every command that computes does this first."""
    flush_denormals()
    keep_freed_memory()


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """`flush_denormals` inside the `with`, so that a library call does not change its caller's arithmetic."""
    flushed_before = bool(torch.tensor(1e-39, dtype=torch.float32).mul(1.0) == 0)
    flush_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
