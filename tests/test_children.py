"""Processes that a command starts import nothing from the current folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from braingpt.utils import child
from tests.fixed_texts import documents
from tests.tiny_runs import prepared

PACKAGE = Path(child.__file__).parents[1]
# Modules of the standard library that a child imports early, and of ours that it imports later.
TRAPS = ("json", "pickle", "socket", "numpy", "torch", "yaml", "random", "tempfile", "braingpt")
TRAP = "import os\nopen({mark!r}, 'a').write(__name__ + '\\n')\nraise RuntimeError('a trap was imported')\n"


@pytest.fixture
def trapped(tmp_path) -> Path:
    """A folder of downloads that would run code, and the mark that it leaves."""
    here = tmp_path / "downloads"
    here.mkdir()
    for name in TRAPS:
        (here / f"{name}.py").write_text(TRAP.format(mark=str(tmp_path / "mark")))
    return here


def run(here: Path, *words: object, module: str = "braingpt") -> subprocess.CompletedProcess[str]:
    """The command as its script starts it: the folder of the script is on the path, not the current one."""
    start = (
        f"import runpy\nif __name__ == '__main__':\n    runpy.run_module({module!r}, run_name='__main__')\n"
    )
    return run_code(here, start, *words)


def run_code(here: Path, code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A user's script that lies elsewhere."""
    script = here.parent / "script.py"
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != child.SAFE_PATH}
    return subprocess.run(
        [sys.executable, script, *map(str, words)], cwd=here, capture_output=True, text=True, check=False,
        timeout=200, env={**environment, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip


def test_bench_kernels(trapped) -> None:
    done = run(
        trapped, "bench", "kernels", "columns", "--size", "nano", "--context", 32, "--rounds", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert not any("error" in row for row in json.loads(done.stdout)["rows"])
    assert not (trapped.parent / "mark").exists()


@pytest.mark.slow
def test_the_measurement_of_memory_in_bench(trapped) -> None:
    folder = prepared(trapped.parent / "data")
    code = (
        "from braingpt.bench.peak_memory import training_memory\n"
        "from braingpt.recipes import load_recipe\n"
        f"changes = ['train.batch=1', 'train.context=16', 'train.steps=2', 'data.folders=[{folder}]']\n"
        "print(training_memory(load_recipe('nano-dense', changes), 'cpu', 1))\n"
    )
    done = run_code(trapped, code)
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr
    assert not (trapped.parent / "mark").exists()


def test_data_prepare_with_several_processes(trapped) -> None:
    """The environment of the command is what its workers inherit; the work is cut into small chunks."""
    file = trapped / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents("en", 60)))
    code = (
        "import sys; sys.argv[0] = 'braingpt'\n"
        "from braingpt.data.prepare import chunk_reader, worker_pool\n"
        "if __name__ == '__main__':\n"
        "    worker_pool.MIN_SECONDS, chunk_reader.CHUNK_CHARACTERS = -1, 500\n"
        "    from braingpt.data.prepare.pipeline import Request, prepare\n"
        "    from braingpt.tokenizer import Tokenizer\n"
        "    from pathlib import Path\n"
        "    prepare(Request('text', Path('out'), [Path('texts.jsonl')], workers=2), Tokenizer.default())\n"
    )
    done = run_code(trapped, code)
    assert done.returncode == 0, done.stderr
    assert (trapped / "out" / "manifest.json").is_file() and not (trapped.parent / "mark").exists()


def test_data_cluster(trapped) -> None:
    pytest.importorskip("datatrove")
    file = trapped / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents("en", 30)))
    words = ("--parts", 1, "--jobs", 1, "--out", "web", "--", "text", file)
    done = run(trapped, *words, module="braingpt.data.cluster")
    assert done.returncode == 0, done.stderr
    assert not (trapped.parent / "mark").exists()


def test_a_module_runs_from_a_checkout_that_is_not_installed(tmp_path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [*child.module_command("braingpt"), "--version"]
    command.insert(1, "-S")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    # Without site-packages typer is missing, but braingpt itself is found.
    assert "No module named 'typer'" in done.stderr, done.stderr


def test_the_command_makes_all_children_safe(monkeypatch) -> None:
    from braingpt.cli import main

    monkeypatch.delenv(child.SAFE_PATH, raising=False)
    monkeypatch.setattr(main, "guarded", lambda work: 0)
    with pytest.raises(SystemExit):
        main.run()
    assert os.environ[child.SAFE_PATH] == "1"


def test_every_python_child_is_started_by_this_function() -> None:
    starting = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "sys.executable" in path.read_text("utf-8")
    }
    # The second only names the command for the user's shell.
    assert starting == {"utils/child.py", "cli/invocation.py"}
