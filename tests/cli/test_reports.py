"""`braingpt eval` and `braingpt inspect-sparsity` on the data of a run and on a text."""

import io
import json
import os
import shutil

import pytest
from rich.console import Console

from braingpt.cli.inspect_sparsity_view import layer_table
from braingpt.inspection.sparsity import sparsity_of_tokens
from tests.conftest import SMALL, awake


def test_eval_scores_the_runs_own_data_by_language(here, braingpt, capsys, tmp_path):
    out = tmp_path / "scores.json"
    assert braingpt("eval", "--windows", 4, "--device", "cpu", "--json-file", out) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[-4:]] == ["language", "ko", "en", "all"]
    scores = json.loads(out.read_text())
    assert (
        scores["step"] == 7
        and scores["context"] == 32
        and scores["tokens"] == 2 * 4 * 32
        and scores["data"] == "data/sample"
    )
    assert f"{scores['by_language']['ko']['bits_per_byte']:.3f}" in text
    assert list(tmp_path.iterdir()) == [out]


def test_eval_of_a_text_and_json_on_standard_output(here, braingpt, capsys, tmp_path):
    (tmp_path / "text").write_text("한강은 서울을 흐른다. " * 20)
    assert braingpt("eval", "runs/nano-v1", "--text", tmp_path / "text", "--device", "cpu", "--json") == 0
    captured = capsys.readouterr()
    scores = json.loads(captured.out)
    assert list(scores["by_language"]) == ["ko"] and scores["bytes"] == len(
        ("한강은 서울을 흐른다. " * 20).strip().encode()
    )
    assert "bits per byte" in captured.err
    (tmp_path / "text").write_bytes(b"\xff")
    assert braingpt("eval", "--text", tmp_path / "text") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--data", "data/none"], "data/none does not exist; make it with: braingpt data prepare"),
        (["eval", "--data", "a", "--text", "b"], "exclude each other"),
        (["eval", "--lang", "ko"], "--lang is for --text"),
        (["eval", "--text", "none"], "no text file none"),
        (["eval", "--text", "data"], "no text file data"),
        (["eval", "--json-file", "none/x.json"], "there is no folder none"),
        (["inspect-sparsity", "--json-file", "data"], "is a folder"),
        (["inspect-sparsity", "--text", "none"], "no text file none"),
        (["bench", "v1", "v2", "--json-file", "none/x"], "there is no folder none"),
        (["bench", "v1", "v5"], "unknown architecture 'v5'"),
        (["bench", "v1", "--size", "smal"], "no recipes of size 'smal'; did you mean 'small'"),
        (["bench", "v1", "--data", "data/none"], "data/none does not exist"),
        (["bench", "compare"], "Missing argument"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(here, braingpt, capsys, arguments, message):
    assert braingpt(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ""


def test_an_unwritable_file_is_reported_before_the_work(here, braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert braingpt("eval", "--json-file", tmp_path / "x.json") == 2
    assert "no permission" in capsys.readouterr().err


def test_inspect_counts_on_the_runs_data_and_on_a_text(here, braingpt, capsys, tmp_path, monkeypatch):
    assert braingpt("inspect-sparsity", "--context", 32, "--rounds", 1, "--device", "cpu", "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (
        report["text"] == "data/sample (validation)"
        and report["tokens"] == 2 * 8 * 32
        and report["total"]["columns_active"] < 0.3
    )
    assert "computed" in captured.err
    (tmp_path / "t.txt").write_text("The river flows.")
    assert (
        braingpt(
            "inspect-sparsity", "runs/nano-v1", "--text", tmp_path / "t.txt", "--rounds", 0, "--device", "cpu"
        )
        == 0
    )
    assert "dendritic" in capsys.readouterr().out
    # Neither here nor above the run are there data.
    alone = shutil.copytree(here / "runs" / "nano-v2", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert braingpt("inspect-sparsity", alone, "--rounds", 0, "--device", "cpu") == 0
    assert "a built-in paragraph" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(SMALL))
def test_the_sparsity_table_fits_80_columns_uncut(name):
    report = sparsity_of_tokens(awake(SMALL[name]), list(range(90)))
    out = Console(file=io.StringIO(), width=80)
    out.print(layer_table(report))
    text = out.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) == 1 + len(report.layers) + 2
