"""The command line as a whole: help without heavy imports, errors in one line, closed pipes."""

import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from braingpt.cli.console import guarded
from braingpt.cli.main import app

HELP_WITHOUT_HEAVY_IMPORTS = """
import sys
from braingpt.cli.console import guarded
from braingpt.cli.main import app
sys.argv = ["braingpt", *sys.argv[1:]]
code = guarded(lambda: app(standalone_mode=False))
heavy = {"torch", "numpy", "rich", "safetensors"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("words", [(), ("eval",), ("data", "prepare"), ("bench", "kernels")], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_HEAVY_IMPORTS, *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: braingpt" in done.stdout


@pytest.mark.parametrize(
    "words", [(), ("data",), ("tokenizer",), ("runs",), ("memory",), ("recipes",)], ids=" ".join
)
def test_the_list_of_commands_fits_80_columns(words):
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_out_of_memory_is_one_line(capsys):
    assert guarded(lambda: torch.empty(1 << 60)) == 1
    assert capsys.readouterr().err == "braingpt: not enough memory; use a smaller model, batch or context\n"


def test_a_reader_that_leaves_is_no_failure(here):
    with subprocess.Popen(
        [sys.executable, "-m", "braingpt", "data", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        command.stdout.close()
        assert command.wait(120) == 0 and command.stderr.read() == b""
