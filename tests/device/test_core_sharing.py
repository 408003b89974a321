"""Beside busy programs a process keeps to the cores that are left; its sums stay the same to the bit."""

import os
import subprocess
import sys
import time

import pytest
import torch

from braingpt.device import core_sharing
from braingpt.device.core_sharing import CoreSharing, cores_to_use
from braingpt.device.threads import restore_thread_count

needs_linux = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores are chosen on Linux only"
)


class Clock:
    """A machine of which each look is told: what each core does, and what this process uses."""

    def __init__(self, *laps: tuple[dict[int, float], float]) -> None:
        self.laps = list(laps)

    def lap(self) -> tuple[dict[int, float], float]:
        per_core, own = self.laps.pop(0)
        return dict(per_core), own


@pytest.fixture
def sharing(monkeypatch):
    """Two cores, two threads, and no thread that is really moved."""
    monkeypatch.setattr(core_sharing.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(core_sharing.os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(core_sharing, "MachineClock", lambda _: Clock())
    monkeypatch.setattr(core_sharing.random, "random", lambda: 0.1)
    lines = []
    with restore_thread_count():
        torch.set_num_threads(2)
        one = CoreSharing(lines.append)
        one.lines = lines
        yield one
        one._compute_on(one.all_cores)


def look(sharing, per_core, own, times=1):
    for _ in range(times):
        sharing.clock = Clock((dict(enumerate(per_core)), own))
        sharing.look()
    return sharing.used


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 6, 8, 16, 64])
@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 64])
@pytest.mark.parametrize("others", [0.0, 0.2, 0.66, 1.0, 1.33, 2.0, 7.5, 64.0])
def test_no_core_more_than_helps_and_none_less(threads, cores, others):
    used = cores_to_use(threads, cores, others)
    free = max(1, cores - max(0, -(-int(100 * others - 25) // 100)))
    assert 1 <= used <= cores
    if threads <= free:
        assert used == cores
    else:
        assert used <= free
        # as long as on all free cores, and longer on one core less
        assert -(-threads // used) == -(-threads // free)
        assert used == 1 or -(-threads // (used - 1)) > -(-threads // free)


def test_two_looks_must_agree(sharing):
    assert look(sharing, [1.0, 1.0], 1.2) == {0, 1}
    assert look(sharing, [1.0, 1.0], 1.9) == {0, 1}, "quiet again"
    assert look(sharing, [1.0, 1.0], 1.2) == {0, 1}
    assert len(look(sharing, [1.0, 1.0], 1.2)) == 1 and sharing.shared
    assert len(sharing.lines) == 1 and "1 of 2 cores" in sharing.lines[0]


def test_all_cores_when_the_others_end(sharing):
    look(sharing, [1.0, 1.0], 1.0, times=2)
    assert len(look(sharing, [1.0, 0.1], 1.0)) == 1
    assert look(sharing, [1.0, 0.1], 1.0) == {0, 1}
    assert sharing.rest is None
    look(sharing, [1.0, 1.0], 1.0, times=2)
    assert sharing.shared and len(sharing.lines) == 1, "told once"


def test_it_moves_to_the_core_that_is_free(sharing):
    look(sharing, [1.0, 1.0], 1.0, times=2)
    (mine,) = sharing.used
    both_here = [1.0, 1.0]
    both_here[1 - mine] = 0.0
    assert look(sharing, both_here, 0.5) == {1 - mine}


def test_of_two_processes_on_one_core_not_both_must_move(sharing, monkeypatch):
    look(sharing, [1.0, 1.0], 1.0, times=2)
    (mine,) = sharing.used
    monkeypatch.setattr(core_sharing.random, "random", lambda: 0.9)
    both_here = [1.0, 1.0]
    both_here[1 - mine] = 0.0
    assert look(sharing, both_here, 0.5) == {mine}


def test_one_thread_is_never_moved(sharing):
    torch.set_num_threads(1)
    assert look(sharing, [1.0, 1.0], 0.7, times=5) == {0, 1}


@needs_linux
@pytest.mark.parametrize("name", core_sharing.CHOSEN_BY_USER)
def test_the_users_own_setting_wins(name, monkeypatch):
    monkeypatch.setattr(core_sharing, "_running", None)
    monkeypatch.setenv(name, "0")
    core_sharing.share_cores()
    assert core_sharing._running is None and not core_sharing.machine_is_shared()


PROGRAM = """
import hashlib, sys, time
import torch
from braingpt.device import core_sharing
core_sharing.INTERVAL = 0.2
torch.set_num_threads(2)
def work():
    torch.manual_seed(0)
    a = torch.randn(300, 300)
    for _ in range(20):
        a = torch.tanh(a @ a.mT + a.sum())
    return hashlib.sha256(a.numpy().tobytes()).hexdigest()
alone = work()
print("ready", flush=True)
sys.stdin.readline()
core_sharing.share_cores(lambda line: print(line, flush=True))
sharing, end = core_sharing._running, time.monotonic() + 20
while not sharing.shared and time.monotonic() < end:
    assert work() == alone
print("shared", len(sharing.used), flush=True)
assert all(work() == alone for _ in range(5))
sys.stdin.readline()
end = time.monotonic() + 3
while sharing.shared and time.monotonic() < end:
    time.sleep(0.1)
print("alone", len(sharing.used) == len(sharing.all_cores), flush=True)
"""


@needs_linux
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_real_process_beside_real_ones_computes_the_same(tmp_path):
    """On two cores beside as many busy loops as there are cores; then they end."""
    two = sorted(os.sched_getaffinity(0))[:2]
    here = {"preexec_fn": lambda: os.sched_setaffinity(0, two)}
    environment = {k: v for k, v in os.environ.items() if k not in core_sharing.CHOSEN_BY_USER}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "2"},
        **here,
    )
    assert child.stdin and child.stdout
    assert child.stdout.readline() == "ready\n"
    loops = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], **here) for _ in two]
    try:
        child.stdin.write("\n")
        child.stdin.flush()
        assert "other programs are busy" in child.stdout.readline()
        assert child.stdout.readline() == "shared 1\n"
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    child.stdin.write("\n")
    child.stdin.flush()
    last = child.stdout.readline()
    child.stdin.close()
    assert child.wait(timeout=60) == 0
    # Other tests may keep the cores busy: then it goes on sharing, as it should.
    assert last.startswith("alone")


@needs_linux
def test_the_clock_sees_this_process_work():
    clock = core_sharing.MachineClock(os.sched_getaffinity(0))
    clock.lap()
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
    per_core, own = clock.lap()
    assert 0.2 < own < 1.5
    assert sum(per_core.values()) > 0.2 and all(-0.1 < busy < 1.2 for busy in per_core.values())
