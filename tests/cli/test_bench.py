"""`braingpt bench` and `braingpt bench kernels`: tables, JSON and pages."""

import json
import re
from xml.etree import ElementTree

import pytest


def test_bench_measures_and_writes_its_report(here, braingpt, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    # which has a process of its own, and tests of its own
    monkeypatch.setattr("braingpt.bench.runner.training_memory", lambda *_: 10**8)
    for name, value in {
        "bench.clock.COLD_BYTES": {"cpu": 1 << 20, "cuda": 1 << 20},
        "bench.few_shot.FACTS_PER_LANGUAGE": 2,
        "bench.few_shot.REPEATED": 16,
        "bench.few_shot.ROWS": 4,
        "bench.limits.BUFFER_BYTES": {"cpu": 4 << 20, "cuda": 4 << 20},
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
        and html.count("<figure>") >= 9
        and "default-src 'none'" in html
    )
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    kept = json.loads((tmp_path / "kept" / "bench.json").read_text())
    assert {key: value for key, value in kept.items() if key != "sha256"} == report


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
