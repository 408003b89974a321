"""`braingpt runs`: list, show and compare, and the report of a run."""

import json
import re
import shutil

import pytest

from braingpt.train.loop import train
from braingpt.train.run.report import write_report
from tests.tiny_runs import prepared, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """data/sample and two runs of it: runs/one, runs/two."""
    root = tmp_path_factory.mktemp("runs-place")
    data = prepared(root / "data" / "sample")
    small = ("train.steps=4", "train.eval_every=2", "train.save_every=4")
    train(tiny("v2", *small, "name=one"), root / "runs/one", [data], device="cpu")
    train(
        tiny("v2", *small, "name=two", "train.lr=1e-4", "train.seed=1"),
        root / "runs/two",
        [data],
        device="cpu",
    )
    return root


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "160")
    return place


def test_a_run_that_cannot_be_read_hides_no_other(there, braingpt, capsys):
    broken = there / "runs/broken"
    broken.mkdir()
    (broken / "recipe.yaml").touch()
    (broken / "metrics.jsonl").touch()
    try:
        assert braingpt("runs", "list") == 0
        out, err = capsys.readouterr()
        assert "two" in out and err.startswith("skipped: recipe runs/broken/recipe.yaml")
    finally:
        shutil.rmtree(broken)


def test_runs_are_listed_shown_and_compared(there, braingpt, capsys):
    assert braingpt("runs", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "run",
        "step",
        "tokens",
        "loss",
        "validation",
        "bits/byte",
        "tokens/s",
        "trouble",
    ]
    assert [line.split()[:2] for line in lines[1:]] == [["one", "4/4"], ["two", "4/4"]]
    assert braingpt("runs", "list", "--json") == 0
    assert [run["name"] for run in json.loads(capsys.readouterr().out)] == ["one", "two"]
    assert braingpt("runs", "show", "one") == 0
    shown = capsys.readouterr().out
    assert (
        "step 4 of 4" in shown
        and "bits/byte (ko" in shown
        and "best: validation loss" in shown
        and "step-0000004" in shown
    )
    assert braingpt("runs", "compare", "one", "runs/two") == 0
    compared = capsys.readouterr().out
    assert (
        "train.lr" in compared
        and "0.0001" in compared
        and "train.seed" in compared
        and "train.batch" not in compared
    )
    assert braingpt("runs", "compare", "one", "two", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (
        set(figures["settings"]) == {"name", "train.lr", "train.seed"}
        and len(figures["training_loss"]["100%"]) == 2
    )


def test_mistakes_are_one_line(there, braingpt, capsys):
    assert braingpt("runs", "show", "oen") == 2
    assert capsys.readouterr().err == "braingpt: there is no run oen; did you mean 'one'?\n"
    assert braingpt("runs", "compare", "one") == 2
    assert "two runs or more" in capsys.readouterr().err
    assert braingpt("runs", "list", "--folder", "nowhere") == 0
    assert "no runs under nowhere/" in capsys.readouterr().out


def test_a_report_holds_what_repeats_the_run(there):
    text = write_report(there / "runs/one", {"ko": "안녕\n하세요", "en": "hello"}).read_text(encoding="utf-8")
    for part in (
        "![loss](curves.",
        "| ko |",
        "안녕 하세요",
        "--recipe runs",
        "revision: 0.",
        "training tokens",
        "```yaml\nname: one",
    ):
        assert part in text.replace(str(there) + "/", ""), part
    assert "- imbalance: load of the busiest column over the mean load" in text
    curves = (there / "runs/one/curves.svg").read_text(encoding="utf-8")
    assert "one: loss over training" in curves and "nats a token" in curves
    assert {"training loss", "validation loss"} <= set(re.findall(">([^<]+)</text>", curves))
    assert (there / "runs/one/curves.png").read_bytes().startswith(b"\x89PNG")
