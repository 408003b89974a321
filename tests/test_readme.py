"""The README's commands, run in their order as they stand there, only shorter; and its Python, as it stands
there.
"""

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line[2:]
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.splitlines()
    if line.startswith("$ braingpt ")
]
SOURCE = ROOT.parent / "shared" / "corpora"

# appended to a command that would take minutes
SHORT = {
    "data prepare": ["--max-samples", "200"],
    "train": [
        f"--set=train.{item}"
        for item in ("steps=4", "warmup=1", "batch=2", "context=64", "eval_every=4", "eval_windows=2")
    ],
    "eval": ["--windows", "2", "--context", "64"],
    "generate": ["--max-new-tokens", "4"],
    "bench": shlex.split(
        "--steps 2 --batch 1 --context 32 --rounds 1 --contexts 8 --batches 1 --new-tokens 2 --minutes 0.001 --windows 2"
    ),
    "inspect-sparsity": ["--context", "64", "--rounds", "1"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the README has been run; each had to end well."""
    folder = tmp_path_factory.mktemp("readme")
    if not SOURCE.is_dir():
        pytest.skip("the tour reads real corpora, which are not here")
    with contextlib.chdir(folder):
        for command in COMMANDS:
            words = shlex.split(command)[1:]
            extra = next((extra for start, extra in SHORT.items() if " ".join(words).startswith(start)), [])
            if words[:2] == ["data", "prepare"]:
                extra = [*extra, "--source", str(SOURCE)]
            with pytest.MonkeyPatch.context() as patch:
                # what is taught there is of another test
                if words[0] == "bench":
                    for name, value in {
                        "bench.few_shot.TAUGHT": 2,
                        "memory.calibrate.TAUGHT": 16,
                        "memory.calibrate.FOREIGN": 32,
                    }.items():
                        patch.setattr(f"braingpt.{name}", value)
                code = guarded(lambda words=words, extra=extra: app([*words, *extra], standalone_mode=False))
            assert code == 0, command
    return folder


def test_the_tour_walks_through_every_main_command(place: Path) -> None:
    first = [shlex.split(command)[1] for command in COMMANDS]
    assert {"data", "train", "eval", "generate", "bench", "inspect-sparsity"} <= set(first)
    assert (place / "runs" / "tiny-v2" / "metrics.jsonl").is_file()


def test_the_python_example_runs(place: Path) -> None:
    code = "\n".join(block for kind, block in BLOCKS if kind == "python").replace(
        "max_new_tokens=50", "max_new_tokens=3"
    )
    assert "braingpt.load" in code
    out = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue().strip()


def test_files_and_commands_it_names_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
