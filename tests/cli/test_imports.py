"""What a command does not need it does not import: torch takes three seconds, its compiler two more."""

import subprocess
import sys

import pytest

RUN = """
import atexit, runpy, sys
module = sys.argv.pop(1)
atexit.register(lambda: print(f"{module in sys.modules = }"))
runpy.run_module("braingpt", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [("data list", "torch"), ("runs list", "torch._dynamo"), ("eval nothing", "torch._dynamo")],
)
def test_a_command_does_without(tmp_path, command, module):
    done = subprocess.run(
        [sys.executable, "-c", RUN, module, *command.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.endswith("module in sys.modules = False\n"), done.stdout + done.stderr
