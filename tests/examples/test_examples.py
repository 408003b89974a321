"""The examples run as they stand, only shorter, and print what their text promises."""

import re
import runpy
from pathlib import Path

import pytest

from braingpt.data.sample import documents

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`example(NAME, STEPS="2")` runs an example in an empty folder and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("TEXT", "PROMPT", "VOCAB", "STEPS", "FOLDER", "RUN", "SAMPLES"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, **environment: str) -> str:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train_on_the_built_in_text(example, tmp_path: Path) -> None:
    shown = example("train_on_your_text", STEPS="4")
    assert re.search(r"ko +text +\d+ +[\d,]+ +[\d,]+", shown) and re.search(r"en +text +\d+", shown)
    assert "1024 entries and 64 special tokens" in shown
    assert len(re.findall(r"^temperature 0\.[59]: \S", shown, re.MULTILINE)) == 2
    [run] = (tmp_path / "runs" / "your-text").glob("*/metrics.jsonl")
    assert run.is_file()


def test_train_on_a_text_of_ones_own_with_the_built_in_vocabulary(example, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    stories = (
        document.text for document in documents(seed=3, size_bytes=60_000) if document.language == "en"
    )
    path.write_text("\n\n".join(stories), encoding="utf-8")
    shown = example("train_on_your_text", TEXT=str(path), PROMPT="Once upon a time", VOCAB="0", STEPS="1")
    assert "tokenizer train" not in shown
    assert "temperature 0.5: Once upon a time" in shown


@pytest.mark.slow
def test_look_inside(example, tmp_path: Path) -> None:
    shown = example("look_inside", STEPS="4", SAMPLES="60")
    total, active = (
        int(figure.replace(",", ""))
        for figure in re.findall(r"([\d,]+) parameters, ([\d,]+) active", shown)[0]
    )
    assert 0 < active < total
    assert len(re.findall(r"^layer \d  (?:ko|en)  [ ░▒▓█]{16}$", shown, re.MULTILINE)) == 6
    assert len(re.findall(r"^ +most Korean: column \d+; most English: column \d+$", shown, re.MULTILINE)) == 3
    assert len(re.findall(r"^layer 1, \d+% selected: ", shown, re.MULTILINE)) == 2
    assert (tmp_path / "runs" / "look-inside" / "inside.html").is_file()
    # The same of a run that is there already
    [run] = (tmp_path / "runs" / "look-inside").glob("*/checkpoints")
    again = example("look_inside", RUN=str(run.parent), FOLDER=str(tmp_path / "again"))
    assert f"{total:,} parameters, {active:,} active" in again
    assert (tmp_path / "again" / "inside.html").is_file()
