"""`braingpt doctor`: findings, JSON and exit codes."""

import json


def test_doctor_prints_its_findings_and_json(here, braingpt, capsys):
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
