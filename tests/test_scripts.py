"""Every script, benchmark and example answers `--help` and does nothing else."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# In one process, since all import torch. A script that works instead of answering would leave files behind.
ASK = """
import contextlib, io, json, os, runpy, sys, traceback
answers = {}
for path in sys.argv[1:]:
    for option in ("--help", "-h"):
        out, code = io.StringIO(), "went on"
        sys.argv = [path, option]
        sys.path.insert(0, os.path.dirname(path))
        with contextlib.redirect_stdout(out):
            try:
                runpy.run_path(path, run_name="__main__")
            except SystemExit as stop:
                code = stop.code
            except BaseException:
                code = traceback.format_exc()
        sys.path.pop(0)
        answers[f"{path} {option}"] = [code, out.getvalue()]
json.dump({"answers": answers, "files": os.listdir()}, sys.__stdout__)
"""


def started_by_name() -> list[Path]:
    """Files with an `if __name__ == "__main__":` that a user starts, and the examples."""
    files = [path for folder in ("scripts", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    files = [path for path in files if _runs(path)]
    return sorted([*files, *(ROOT / "examples").glob("*.py"), ROOT / "braingpt/data/prepare/cluster.py"])


def _runs(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in body)


@cache
def answers(folder: str) -> dict:
    command = [sys.executable, "-c", ASK, *map(str, started_by_name())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_no_script_hides_a_module_of_python():
    # Programs that a script starts may inherit its path: a `benchmarks/encodings.py` kept them from starting,
    # so that Inductor took the processor for one without vectors.
    hidden = [path.stem for path in started_by_name() if path.stem in sys.stdlib_module_names]
    assert not hidden


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("help"))


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("path", started_by_name(), ids=lambda path: path.name)
def test_help_is_answered(folder: str, path: Path, option: str) -> None:
    code, printed = answers(folder)["answers"][f"{path} {option}"]
    assert code in (0, None), code
    assert printed.startswith("usage: ") and path.stem in printed
    assert len(printed.splitlines()) > 1


def test_nothing_is_done(folder: str) -> None:
    assert len(answers(folder)["answers"]) > 50
    assert answers(folder)["files"] == []
