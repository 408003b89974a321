"""The program in use.py under two type checkers, and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from braingpt.checkpoint import checkpoint
from braingpt.model.lm import build
from braingpt.tokenizer import Tokenizer
from tests.tiny_runs import tiny

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("use.py")
CHECKERS = {
    "mypy": ["mypy", "--strict", "--follow-imports=silent", "--python-executable", sys.executable],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
# A call whose types are wrong, and what is wrong.
WRONG = "import braingpt\nmodel, tokenizer = braingpt.load(3)\nids: str = model.generate([1], top_k='a')\n"


def check(checker: str, folder: Path, *programs: Path) -> str:
    """What a checker prints; it finds braingpt in this checkout."""
    environment = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", *CHECKERS[checker], *map(str, programs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_api_is_typed(tmp_path: Path, checker: str) -> None:
    if checker == "pyright":
        settings = f'{{"extraPaths": ["{ROOT}"], "typeCheckingMode": "standard"}}'
        (tmp_path / "pyrightconfig.json").write_text(settings)
    program, wrong = tmp_path / "use.py", tmp_path / "wrong.py"
    program.write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    wrong.write_text(WRONG)
    # Both at once, since a checker reads braingpt, and torch, anew each time.
    printed = check(checker, tmp_path, program, wrong)
    # It does see braingpt's types.
    assert set(re.findall(r"(\w+\.py):(\d+):.*error", printed)) == {("wrong.py", "2"), ("wrong.py", "3")}, (
        printed
    )


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_program_runs(tmp_path: Path, data: Path, name: str, monkeypatch, capsys) -> None:
    from tests.python_api import use

    recipe = tiny(name)
    folder = tmp_path / "runs" / recipe.name / "checkpoints" / "step-0000003"
    model, tokenizer = build(recipe), Tokenizer.default()
    checkpoint.save(folder, model=model, tokenizer=tokenizer, recipe=recipe, step=3, tokens=30)
    monkeypatch.setattr("episodic.calibrate.TAUGHT".replace("episodic", "braingpt.episodic"), 8)
    monkeypatch.setattr("braingpt.episodic.calibrate.FOREIGN", 16)
    monkeypatch.setattr(sys, "argv", ["use.py", str(folder.parents[1]), str(data)])
    use.main()
    assert "there is no run no/such/run" in capsys.readouterr().out
