"""A folder as a user has it after preparing data and training: data/sample, runs/nano-v1, runs/nano-v2 (the
newest).
"""

import os

import pytest

from braingpt.checkpoint import checkpoint
from braingpt.cli.console import guarded
from braingpt.cli.main import app
from braingpt.data.prepare import journal
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.episodic.conftest import calibrated as calibrated
from tests.episodic.conftest import loaded as loaded
from tests.episodic.conftest import trained as trained
from tests.tiny_runs import prepared, tiny


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    prepared(root / "data" / "sample")
    for number, name in enumerate(("v1", "v2")):
        # its data folder is data/sample
        recipe = tiny(name)
        folder = root / "runs" / recipe.name / "checkpoints" / "step-0000007"
        model = awake(recipe.model).float()
        checkpoint.save(folder, model=model, tokenizer=Tokenizer.default(), recipe=recipe, step=7, tokens=70)
        os.utime(folder / "state.json", (1e9 + number, 1e9 + number))
    return root


@pytest.fixture
def here(workspace, monkeypatch):
    """The workspace as current folder, on a wide terminal without colour."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("COLUMNS", "200")
    return workspace


@pytest.fixture
def braingpt():
    """The command line in this process: `braingpt("eval", "--json")` returns the exit code."""
    return lambda *arguments: guarded(
        lambda: app([str(argument) for argument in arguments], standalone_mode=False)
    )


@pytest.fixture
def place(tmp_path, workspace, monkeypatch):
    """A folder for a command that is killed (`killed.py`). Journals are written after each chunk."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal, "SECONDS", 0)
    return tmp_path / "place"
