#!/usr/bin/env bash
# A torch process that is moved to one core after its start gets several times slower than one that started there,
# until an idle thread is added to it.
#
# One would guess: two threads on one core take twice the time of two cores, whenever they were put there, and a further
#   thread that does nothing changes nothing.
# What happens: libgomp counts the cores when it is loaded. Started on one core with two threads, its waiting threads
#   sleep at once. Moved to one core later (a container's new CPU set, taskset on a running process, a scheduler's
#   decision), they go on spinning for a thread that cannot run meanwhile. As soon as another Python thread has run
#   one parallel operation, the process has more OpenMP threads than cores, and all its waiting threads sleep at once
#   again: the idle team makes the busy one several times faster.
# Versions: torch 2.13.0 (libgomp of its own wheel), Linux, any CPU with two cores or more.
# Why it matters: a CPU quota or CPU set that shrinks while a server or a training runs costs far more than the cores
#   it takes, and no documented setting changes the spinning of a process that runs already.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet torch==2.13.0
cat > "$work/beside.py" <<'PY'
import os
import sys
import threading
import time

import torch


def seconds():
    """A chain of small parallel operations; the shortest of three times."""
    rows = torch.rand(256, 1024)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(300):
            torch.add(rows, 1.0, out=rows)
        best = min(best, time.perf_counter() - began)
    return best


torch.set_num_threads(2)
cores = sorted(os.sched_getaffinity(0))
if sys.argv[1] == "started":
    print(seconds())
    sys.exit()
seconds()
for task in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(task), {cores[0]})
moved = seconds()
ready, over = threading.Event(), threading.Event()


def rest():
    torch.zeros(1 << 20).add_(1)
    ready.set()
    over.wait()


threading.Thread(target=rest, daemon=True).start()
ready.wait()
print(moved, seconds())
over.set()
PY
core=$(python3 -c 'import os; print(min(os.sched_getaffinity(0)))')
export OMP_NUM_THREADS=2
unset OMP_WAIT_POLICY GOMP_SPINCOUNT OMP_PROC_BIND OMP_PLACES GOMP_CPU_AFFINITY
started=$(taskset -c "$core" "$work/venv/bin/python" -W ignore "$work/beside.py" started)
read -r moved rested < <("$work/venv/bin/python" -W ignore "$work/beside.py" moved)
python3 - "$started" "$moved" "$rested" <<'PY'
import sys

started, moved, rested = map(float, sys.argv[1:])
print(f"two threads on one core, ms for 300 small operations: started there {1e3 * started:.0f}, "
      f"moved there {1e3 * moved:.0f}, moved there beside an idle team {1e3 * rested:.0f}")
if moved < 3 * started or moved < 3 * rested:
    sys.exit("no longer as stated: moved there is no longer three times as slow")
PY
