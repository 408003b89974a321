"""Memory within the limits of control groups of both versions, and where the number comes from."""

import pytest
import torch

from braingpt.device import free_memory as module
from braingpt.device.free_memory import available_memory

CPU = torch.device("cpu")
MB = 1 << 20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 1,000 MB available; `write(path, text)` sets its files."""
    monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(module, "CGROUPS", tmp_path / "cgroup")

    def write(path: str, text: object) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    write("proc/meminfo", f"MemTotal: 9 kB\nMemAvailable: {1000 * 1024} kB")
    return write


def group(write, place: str, limit: object, used: int, file: int = 0, version: int = 2) -> None:
    """A control group of the version, with its limit, its use, and the part of it that is files."""
    if version == 2:
        root, names, key = "cgroup", ("memory.max", "memory.current"), "inactive_file"
    else:
        root, names = "cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        key = "total_inactive_file"
    for name, value in (*zip(names, (limit, used), strict=True), ("memory.stat", f"anon 1\n{key} {file}")):
        write(f"{root}/{place}/{name}", value)


def test_without_limits_the_machine_counts(machine):
    machine("proc/self/cgroup", "0::/\n8:pids:/x")
    group(machine, "", "max", 5)
    assert available_memory(CPU) == (1000 * MB, "free on this machine")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inner", [True, False])
def test_the_least_of_all_groups_counts(machine, version, inner):
    machine("proc/self/cgroup", "0::/a/b" if version == 2 else "4:cpu,memory:/a/b\n0::/")
    limits = (300, 900) if inner else (900, 300)
    group(machine, "a/b", limits[0] * MB, 100 * MB, 50 * MB, version)
    group(machine, "a", limits[1] * MB, 100 * MB, 50 * MB, version)
    assert available_memory(CPU) == (250 * MB, "the container's limit (cgroup)")


def test_a_container_that_sees_only_its_own_group(machine):
    machine("proc/self/cgroup", "0::/../../outside")
    group(machine, "", 200 * MB, 150 * MB)
    assert available_memory(CPU).bytes == 50 * MB


def test_a_group_beyond_its_limit_has_nothing_left(machine):
    machine("proc/self/cgroup", "0::/")
    group(machine, "", 200 * MB, 250 * MB)
    assert available_memory(CPU).bytes == 0


def test_the_address_space_counts(machine, monkeypatch):
    machine("proc/self/cgroup", "")
    machine("proc/self/statm", "1000 1 1")
    monkeypatch.setattr("resource.getrlimit", lambda which: (300 * MB, 300 * MB))
    found = available_memory(CPU)
    assert 0 < found.bytes < 300 * MB and found.source == "the limit on the address space (ulimit -v)"


def test_here():
    assert 0 < available_memory(CPU).bytes < 1 << 50
