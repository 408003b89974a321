"""Writing without loss: on a full disk the run waits for space, and a thread may write checkpoints while
training continues.
"""

import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from braingpt.distributed.world import World
from braingpt.train.run.signals import StopRequest

# Error numbers of a full disk and an exhausted quota.
FULL = (errno.ENOSPC, errno.EDQUOT)
# Seconds between two attempts.
PAUSE = 2.0

T = TypeVar("T")


def retry_while_disk_full(
    write: Callable[[], T], note: Callable[[str], None], stop: StopRequest, world: World | None = None
) -> T:
    """Call `write`, again and again while the disk is full, until a stop is asked for.

    Args:
        write: Writes something.
        note: Prints a line; called once.
        stop: Ends the waiting.
        world: The processes that write together, fail together, and wait or give up together.

    Raises:
        OSError: The disk is full and a stop is asked for, or any other error of `write`.
    """
    noted = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or any((world or World()).all_gather(stop.asked)):
                raise
            if not noted:
                where = f" at {error.filename}" if error.filename else ""
                note(f"the disk is full{where}; waiting for space, nothing is lost")
            noted = True
            time.sleep(PAUSE)


class Saver:
    """Writes one checkpoint at a time: at once, or in a thread while training continues."""

    def __init__(self, in_thread: bool) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_thread else None
        self.job: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Write a checkpoint. Raises the error of the one before, where it failed."""
        self.finish()
        if self.pool is None:
            write()
        else:
            self.job = self.pool.submit(write)

    def finish(self) -> None:
        """Wait until what was submitted is on disk. Raises its error, where it failed."""
        job, self.job = self.job, None
        if job is not None:
            job.result()
