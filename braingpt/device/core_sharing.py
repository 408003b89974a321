"""Leave other programs their cores: where they are busy, this process computes on fewer, until they end.

Threads of OpenMP wait for each other after each small piece of work. Where another program has one of the
cores, a thread that does not run holds up all others, and a program that deserves half the machine gets a
tenth. A process that keeps to the cores it would be given anyway does not wait: with as many threads as
before, so that sums round as before, two or more to a core.

Threads that share a core must sleep while they wait, not spin. libgomp, the OpenMP of torch on Linux, does
so when a process has more threads than the machine has cores (`gomp_managed_threads` in its `wait.h`). So
one more thread with a parallel region of its own rests beside the others meanwhile.

Linux only. Elsewhere, and where the user has set how threads wait or where they run, nothing happens.
"""

import math
import os
import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import torch

# Settings of a user who has chosen how threads wait and where they run.
CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
# Seconds between two looks at the machine, and between the first few: a short command should not miss them.
INTERVAL, FIRST_INTERVAL = 1.0, 0.25
FIRST_LOOKS = 4
# Cores that other programs use: from the first number on they count, below the second they no longer do.
BUSY, QUIET = 0.4, 0.25
# Looks in a row that must agree.
LOOKS = 2
# Cores of difference in what others use of two cores, from which on it is worth to move.
MOVE = 0.3

CPU_TIMES = Path("/proc/stat")
TASKS = Path("/proc/self/task")

_running: "CoreSharing | None" = None


def cores_to_use(threads: int, cores: int, others: float) -> int:
    """The number of cores for `threads` that each have an equal part of the work.

    Where not every thread has a core of its own, the work takes as long as the fullest core; the fewest
    cores that take no longer are enough.

    Args:
        threads: Threads that compute.
        cores: Cores that this process may use.
        others: Cores that other programs use, on average.

    Returns:
        Between 1 and `cores`; all of them where `threads` fit beside the others.
    """
    free = max(1, cores - math.ceil(others - QUIET))
    if threads <= free:
        return cores
    threads_a_core = math.ceil(threads / free)
    return math.ceil(threads / threads_a_core)


def share_cores(note: Callable[[str], None] | None = None) -> None:
    """From now on keep to the cores that other busy programs leave; once for each process.

    Processes that are started while others are busy stay on the cores of that moment.

    Args:
        note: Takes a line when the first other program is noticed.
    """
    global _running
    possible = hasattr(os, "sched_setaffinity") and CPU_TIMES.exists() and TASKS.exists()
    if _running is None and possible and not any(os.environ.get(name) for name in CHOSEN_BY_USER):
        _running = CoreSharing(note)
        _running.start()


def machine_is_shared() -> bool:
    """Whether other programs are busy, as far as `share_cores` has noticed."""
    return _running is not None and _running.shared


class CoreSharing(threading.Thread):
    """Looks at the machine each second, and moves the threads of this process."""

    def __init__(self, note: Callable[[str], None] | None = None) -> None:
        super().__init__(name="core-sharing", daemon=True)
        self.note = note
        self.all_cores = frozenset(os.sched_getaffinity(0))
        self.used = self.all_cores
        self.agreeing = 0
        self.rest: RestingTeam | None = None
        self.ended = threading.Event()
        self.clock = MachineClock(self.all_cores)

    @property
    def shared(self) -> bool:
        """Whether this process leaves some cores to others."""
        return self.used != self.all_cores

    def run(self) -> None:
        # A machine that lets nobody look, or move threads, stays as it is.
        with suppress(OSError, ValueError):
            looks = 0
            while not self.ended.wait(FIRST_INTERVAL if looks < FIRST_LOOKS else INTERVAL):
                self.look()
                looks += 1
        with suppress(OSError):
            self._compute_on(self.all_cores)

    def stop(self) -> None:
        """Go back to all cores; the thread ends."""
        self.ended.set()
        self.join()

    def look(self) -> None:
        """Measure what others use since the last look, and follow it when two looks agree."""
        per_core, own = self.clock.lap()
        others = sum(per_core.values()) - own
        if not self.shared:
            count = cores_to_use(torch.get_num_threads(), len(self.all_cores), others)
            self._when_agreed(others >= BUSY and count < len(self.all_cores), count, {})
            return
        # What this process uses lies on the cores it keeps to, in equal parts.
        for core in self.used:
            per_core[core] -= own / len(self.used)
        if others < QUIET:
            self._when_agreed(True, len(self.all_cores), per_core)
            return
        self.agreeing = 0
        count = cores_to_use(torch.get_num_threads(), len(self.all_cores), others)
        best = least_used(per_core, count)
        gain = sum(per_core[core] for core in self.used) / len(self.used) - sum(
            per_core[core] for core in best
        ) / len(best)
        # By chance, so that two processes that both share do not follow each other.
        if count != len(self.used) or (gain > MOVE and random.random() < 0.5):
            self._compute_on(best)

    def _when_agreed(self, change: bool, count: int, per_core: dict[int, float]) -> None:
        self.agreeing = self.agreeing + 1 if change else 0
        if self.agreeing >= LOOKS:
            self.agreeing = 0
            cores = per_core or {core: random.random() for core in self.all_cores}
            self._compute_on(least_used(cores, count))

    def _compute_on(self, cores: frozenset[int]) -> None:
        """Move all threads of this process to `cores`."""
        if cores == self.used:
            return
        fewer = cores != self.all_cores
        if fewer and self.rest is None:
            self.rest = RestingTeam()
            if self.note:
                self.note(
                    f"other programs are busy: computing on {len(cores)} of {len(self.all_cores)} cores while"
                    " they are"
                )
                self.note = None
        elif not fewer and self.rest is not None:
            self.rest.end()
            self.rest = None
        for task in TASKS.iterdir():
            # A thread may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)
        self.used = cores


def least_used(per_core: dict[int, float], count: int) -> frozenset[int]:
    """The `count` cores with the least use."""
    return frozenset(sorted(per_core, key=per_core.__getitem__)[:count])


class MachineClock:
    """What the cores did between two laps: all programs, and this process alone."""

    def __init__(self, cores: Collection[int]) -> None:
        self.cores = cores
        self.tick = os.sysconf("SC_CLK_TCK")
        self.last = self._read()

    def lap(self) -> tuple[dict[int, float], float]:
        """Since the last lap.

        Returns:
            The share of the time that each core was busy, and the cores that this process used on average.
        """
        (before, own_before, began), now = self.last, self._read()
        self.last = now
        seconds = max(now[2] - began, 1e-9)
        return {core: (now[0][core] - before[core]) / seconds for core in self.cores}, (
            now[1] - own_before
        ) / seconds

    def _read(self) -> tuple[dict[int, float], float, float]:
        """Busy seconds of each core, processor seconds of this process, and the time."""
        busy = {}
        for line in CPU_TIMES.read_text().splitlines():
            name, *ticks = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in self.cores:
                # user, nice, system, idle, iowait, irq, softirq; time stolen by a host is nobody's here.
                user, nice, system, _, _, irq, softirq = map(int, ticks[:7])
                busy[int(name[3:])] = (user + nice + system + irq + softirq) / self.tick
        return busy, time.process_time(), time.monotonic()


class RestingTeam:
    """A thread with an idle OpenMP team of its own: while it exists, threads that wait sleep at once."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._rest, name="resting-team", daemon=True)
        self.thread.start()
        self.ready.wait()

    def _rest(self) -> None:
        # Large enough for torch to divide it among its threads.
        torch.zeros(1 << 20).add_(1)
        self.ready.set()
        self.over.wait()

    def end(self) -> None:
        """Let the team go."""
        self.over.set()
        self.thread.join()
