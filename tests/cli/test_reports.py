import io
import json
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

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
        ("한강은 서울을 흐른다. " * 20).encode()
    )
    assert "bits per byte" in captured.err
    (tmp_path / "text").write_bytes(b"\xff")
    assert braingpt("eval", "--text", tmp_path / "text") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--data", "data/none"], "data/none does not exist; make it with: braingpt data prepare"),
        (["eval", "--data", "a", "--text", "b"], "exclude each other"),
        (["eval", "--lang", "ko"], "--lang belongs to --text"),
        (["eval", "--text", "none"], "no text file none"),
        (["eval", "--text", "data"], "no text file data"),
        (["eval", "--json-file", "none/x.json"], "there is no folder none"),
        (["inspect-sparsity", "--json-file", "data"], "is a folder"),
        (["inspect-sparsity", "--text", "none"], "no text file none"),
        (["bench", "v1", "v2", "--json-file", "none/x"], "there is no folder none"),
        (["bench", "v1", "v5"], "unknown architecture 'v5'"),
        (["bench", "v1", "--size", "smal"], "no recipes of size 'smal'; did you mean 'small'"),
        (["bench", "v1", "--data", "data/none"], "data/none does not exist"),
        (["bench"], "Missing argument"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(here, braingpt, capsys, arguments, message):
    assert braingpt(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1] and captured.out == ""


def test_an_unwritable_place_is_told_before_the_work(here, braingpt, capsys, tmp_path, monkeypatch):
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
    # no data here
    monkeypatch.chdir(tmp_path)
    assert braingpt("inspect-sparsity", here / "runs" / "nano-v2", "--rounds", 0, "--device", "cpu") == 0
    assert "a built-in paragraph" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(SMALL))
def test_the_sparsity_table_fits_80_columns_uncut(name):
    report = sparsity_of_tokens(awake(SMALL[name]), list(range(90)))
    out = Console(file=io.StringIO(), width=80)
    out.print(layer_table(report))
    text = out.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) == 1 + len(report.layers) + 2


def test_bench_measures_and_writes_its_report(here, braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    # which has a process of its own, and tests of its own
    monkeypatch.setattr("braingpt.bench.runner.training_memory", lambda *_: 10**8)
    for name, value in {
        "bench.few_shot.TAUGHT": 2,
        "episodic.calibrate.TAUGHT": 16,
        "episodic.calibrate.FOREIGN": 32,
    }.items():
        monkeypatch.setattr(f"braingpt.{name}", value)
    sizes = [
        "--steps",
        2,
        "--context",
        16,
        "--batch",
        1,
        "--rounds",
        1,
        "--contexts",
        8,
        "--batches",
        1,
        "--new-tokens",
        2,
        "--windows",
        1,
    ]
    written = ["--json-file", tmp_path / "b.json", "--html", tmp_path / "b.html", "--out", tmp_path / "kept"]
    assert (
        braingpt("bench", "v1", "v2", *sizes, "--minutes", 0.001, "--threads", 1, "--device", "cpu", *written)
        == 0
    )
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "b.json").read_text())
    assert list(report["contenders"]) == ["v1", "v2"] and report["machine"]["cpu"] in text
    for part in (
        "Equal total parameters, equal tokens",
        "times v1",
        "lowest-highest",
        "Few-shot",
        "not reached",
        "not measured here",
    ):
        assert part in text, part
    tables = [
        line
        for line in text.splitlines()[3:]
        if not line.startswith(("Equal", "Stability", "Training", "failed"))
    ]
    assert max(map(len, tables)) <= 80 and not any("…" in line for line in tables)
    html = (tmp_path / "b.html").read_text()
    assert (
        html == (tmp_path / "kept" / "report.html").read_text()
        and html.count("<svg") >= 9
        and "default-src 'none'" in html
    )
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    assert json.loads((tmp_path / "kept" / "bench.json").read_text()) == report


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["v1", "--contexts", "a"],
            "--contexts a: give whole numbers separated by commas, for example 512,2048",
        ),
        (["v1", "--contexts", "1"], "give different numbers of at least 2"),
        (["v1", "--peer", "gpt2"], "unknown peer 'gpt2'; did you mean 'gpt2-hf'"),
        (["v1", "--html", "none/x"], "--html none/x: there is no folder none"),
    ],
)
def test_what_bench_cannot_do_is_one_line(here, braingpt, capsys, words, message):
    assert braingpt("bench", *words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_doctor_tells_and_json_is_json(here, braingpt, capsys):
    assert braingpt("doctor") == 0
    text = capsys.readouterr().out
    assert "data/sample" in text and "runs/nano-v2: step 7" in text and "lm-eval" in text
    assert braingpt("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 0 and {"state", "topic", "text"} == set(report["findings"][0])


def test_doctor_strict_exits_with_the_problem(tmp_path, monkeypatch, braingpt, capsys):
    (tmp_path / "data" / "bad").mkdir(parents=True)
    (tmp_path / "data" / "bad" / "manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert braingpt("doctor") == 0 and "1 problem found" in capsys.readouterr().out
    assert braingpt("doctor", "--strict") == 1


def test_help_stays_light():
    """No command pulls in torch before it runs."""
    code = "import sys, braingpt.cli.main; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bench_kernels_writes_its_table_and_page(braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    small = ("--size", "nano", "--context", "16", "--rounds", "1", "--threads", "1", "--device", "cpu")
    assert (
        braingpt(
            "bench",
            "kernels",
            "norm",
            *small,
            "--json-file",
            tmp_path / "k.json",
            "--html",
            tmp_path / "k.html",
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "measured limits:" in out
        and "short backward" in out
        and all(len(line) <= 80 for line in out.splitlines()[2:])
    )
    (row,) = json.loads((tmp_path / "k.json").read_text())["rows"]
    assert row["operation"] == "norm" and row["seconds"]["median"] > 0
    assert "braingpt bench kernels" in (tmp_path / "k.html").read_text()
    assert braingpt("bench", "kernels", "--html", tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err
