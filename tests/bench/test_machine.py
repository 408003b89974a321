import subprocess
import sys

from braingpt.bench.machine import cpu_name, forget_peak, machine, memory_bytes, resident_bytes


def test_the_peak_sees_memory_that_is_held_and_gone():
    forget_peak()
    before = resident_bytes()
    block = bytearray(b"x" * 80_000_000)
    del block
    assert resident_bytes(peak=True) - before > 70e6
    forget_peak()
    assert resident_bytes(peak=True) - resident_bytes() < 20e6


def test_a_child_does_not_inherit_its_parents_peak():
    """What getrusage gets wrong on Linux, and the reason for VmHWM."""
    block = bytearray(b"x" * 300_000_000)
    code = "from braingpt.bench.machine import resident_bytes; print(resident_bytes(peak=True))"
    # bench.machine imports torch, which alone takes a few hundred MB: compare with what the child holds, not
    # with zero.
    code += "\nprint(resident_bytes())"
    peak, held = map(int, subprocess.check_output([sys.executable, "-c", code]).split())
    assert peak - held < 200e6 and len(block)


def test_names():
    facts = machine()
    assert facts["cpu"] == cpu_name() and facts["cpu"] and facts["cores"] >= 1 and facts["threads"] >= 1
    assert memory_bytes() is None or memory_bytes() > 1e8
