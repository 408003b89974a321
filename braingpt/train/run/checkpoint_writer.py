"""Writing that cannot be lost: on a full disk the run waits for room, and checkpoints may be written beside
the training.
"""

import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from braingpt.distributed.world import World
from braingpt.train.run.signals import StopRequest

FULL = (errno.ENOSPC, errno.EDQUOT)
# seconds between two attempts
PAUSE = 2.0

T = TypeVar("T")


def retry_while_disk_full(
    write: Callable[[], T], note: Callable[[str], None], stop: StopRequest, world: World | None = None
) -> T:
    """`write()`, again and again while the disk is full; everything else is raised, and so is the full disk
    once a stop is asked for.

    `world`: the processes that write together, fail together, and wait or give up together.
    """
    told = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or any((world or World()).all_gather(stop.asked)):
                raise
            if not told:
                note(
                    f"the disk is full{f' at {error.filename}' if error.filename else ''}; waiting for room, nothing is lost"
                )
            told = True
            time.sleep(PAUSE)


class Saver:
    """Writes one checkpoint at a time; `beside` the training, in a thread, or at once."""

    def __init__(self, beside: bool) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if beside else None
        self.job: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Have it written. What went wrong with the one before is raised now."""
        self.finish()
        if self.pool is None:
            write()
        else:
            self.job = self.pool.submit(write)

    def finish(self) -> None:
        """Wait until what was submitted lies on the disk, and raise what went wrong with it."""
        job, self.job = self.job, None
        if job is not None:
            job.result()
