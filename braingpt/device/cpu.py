"""CPU settings of a process that computes: denormals are flushed, freed memory is kept."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flush_denormals() -> None:
    """Treat numbers below 1e-38 as zero on the CPU, from now on.

    In the head's gradient they made a step up to ten times slower.

    The flag belongs to a thread and is inherited by the threads it starts: set it before torch first computes
    in parallel.
    """
    torch.set_flush_denormal(True)


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors free, for the next ones, from now on; glibc only,
    elsewhere it does nothing.

    malloc hands large blocks back at once, and every step paid for the same pages again: a million page
    faults in sixty steps of a small model.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        # macOS, Windows, musl
        return
    # malloc.h
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 64 * 2**20)


def settle_cpu() -> None:
    """What every command that computes does first: `flush_denormals` and `keep_freed_memory`."""
    flush_denormals()
    keep_freed_memory()


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """`flush_denormals` for the time of the `with`, so that a library call does not change its caller's
    arithmetic.
    """
    flushed_before = bool(torch.tensor(1e-39, dtype=torch.float32).mul(1.0) == 0)
    flush_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
