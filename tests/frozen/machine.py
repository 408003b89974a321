"""Where bits are comparable: the same torch on the same kind of processor."""

import platform
from pathlib import Path

import torch


def this_machine() -> dict[str, str]:
    """What decides the order of additions in a product on a CPU.

    One thread is assumed (`tests/conftest.py`).
    """
    facts = {}
    if (file := Path("/proc/cpuinfo")).is_file():
        for line in file.read_text(encoding="utf-8").partition("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    model = " ".join(facts.get(key, "") for key in ("vendor_id", "cpu family", "model", "model name")).strip()
    return {
        "torch": torch.__version__,
        "cpu": model or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
