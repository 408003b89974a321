"""How many threads a run on a CPU computes with: all that torch would take, or one, whichever is faster on
the run's own first windows.

Threads wait for each other; where other programs or a container's quota take turns on the cores, and where
products are small, one may be the faster. The count is kept with the checkpoints: sums of another number of
threads are rounded otherwise. Who sets OMP_NUM_THREADS has chosen.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

ROUNDS = 2


def faster(work: Callable[[], object], most: int) -> int:
    """`most` threads or one: in which number `work`, done in turns, has its quickest time.

    Leaves the number of threads as it was.
    """
    with restored():
        seconds = {most: float("inf"), 1: float("inf")}
        # what is loaded at first use is not counted
        work()
        for threads in [most, 1] * ROUNDS:
            torch.set_num_threads(threads)
            began = time.perf_counter()
            work()
            seconds[threads] = min(seconds[threads], time.perf_counter() - began)
    return min(seconds, key=seconds.__getitem__)


def chosen(device: torch.device, saved: int | None) -> int | None:
    """The number of threads that needs no trial: of what computes elsewhere, is given, or was `saved` by this
    run; None where one is due.
    """
    most = torch.get_num_threads()
    if device.type != "cpu" or most == 1 or os.environ.get("OMP_NUM_THREADS"):
        return most
    return saved if saved in (1, most) else None


@contextmanager
def restored() -> Iterator[None]:
    """After the `with`, torch computes with as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
