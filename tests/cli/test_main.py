"""The command line as a whole: errors in one line, closed pipes."""

import subprocess
import sys

import torch

from braingpt.cli.console import guarded


def test_out_of_memory_is_one_line(capsys):
    assert guarded(lambda: torch.empty(1 << 60)) == 1
    assert capsys.readouterr().err == "braingpt: not enough memory; use a smaller model, batch or context\n"


def test_a_reader_that_leaves_is_no_failure(here):
    with subprocess.Popen(
        [sys.executable, "-m", "braingpt", "data", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        command.stdout.close()
        assert command.wait(120) == 0 and command.stderr.read() == b""
