"""How many threads a run on a CPU computes with: all that torch would take, or one.

Whichever is faster on the run's own first windows wins.
Threads wait for each other, so one may be faster where other programs or a container's quota take turns on
the cores, and where products are small.
The count is kept with the checkpoints, because another number of threads rounds sums differently.
A user who sets OMP_NUM_THREADS has chosen.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Times that each count is tried.
ROUNDS = 2


def faster_thread_count(work: Callable[[], object], max_threads: int) -> int:
    """The number of threads with which work is faster: all or one.

    Args:
        work: The work to time, run in turns with each count.
        max_threads: All threads.

    Returns:
        `max_threads` or 1, whichever had the shortest time.
    """
    with restore_thread_count():
        seconds = {max_threads: float("inf"), 1: float("inf")}
        # What is loaded at first use is not timed.
        work()
        for threads in [max_threads, 1] * ROUNDS:
            torch.set_num_threads(threads)
            began = time.perf_counter()
            work()
            seconds[threads] = min(seconds[threads], time.perf_counter() - began)
    return min(seconds, key=seconds.__getitem__)


def known_thread_count(device: torch.device, saved: int | None) -> int | None:
    """The number of threads where no trial is needed, or None.

    Args:
        device: Where the run computes; on a GPU there is nothing to try.
        saved: What an earlier trial of the same run found.
    """
    max_threads = torch.get_num_threads()
    if device.type != "cpu" or max_threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return max_threads
    return saved if saved in (1, max_threads) else None


@contextmanager
def restore_thread_count() -> Iterator[None]:
    """After the `with`, torch computes with as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
