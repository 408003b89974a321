"""`--json` and `--json-file`: one meaning in all commands, and the former `--json FILE` of five of them."""

import json
import os
from pathlib import Path

import pytest

from braingpt.bench.kernels.runner import run_kernels
from braingpt.bench.runner import run_bench
from braingpt.cli.json_output import ReportCommand, translate_former_json
from tests.docs.places import SMALLER
from tests.frozen.commands import walk

NOTICE = "braingpt: --json FILE is now --json-file FILE"
NOTICE_STANDARD_OUTPUT = "braingpt: --json - is now --json"
CPU = ("--device", "cpu")
KERNELS = ("--size", "nano", "--context", "16", "--rounds", "1", "--threads", "1", *CPU)
BENCH = (
    *(
        "--steps",
        "2",
        "--context",
        "16",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--contexts",
        "8",
        "--batches",
        "1",
    ),
    *("--new-tokens", "2", "--windows", "1", "--minutes", "0", "--threads", "1", *CPU),
)
# Words of each command with `--json-file`, an argument that has to stay an argument, and fast settings.
REPORTS = {
    "eval": (("eval",), "runs/nano-v1", ("--windows", "1", *CPU)),
    "inspect-sparsity": (
        ("inspect-sparsity",),
        "runs/nano-v1",
        ("--context", "16", "--rounds", "0", "--show", "0", *CPU),
    ),
    "calibrate": (("calibrate",), "runs/nano-v1", ("--windows", "1", *CPU)),
    "bench compare": (("bench",), "dense", BENCH),
    "bench kernels": (("bench", "kernels"), "norm", KERNELS),
}


def once(measure):
    """A measurement that is made once: each later call returns the first report."""
    reports = []

    def measured(*arguments):
        if not reports:
            reports.append(measure(*arguments))
        return reports[0]

    return measured


@pytest.fixture
def quick(monkeypatch):
    """Benchmarks are small, and measure once for all forms. `test_reports.py` tests what they measure."""
    for name, measure in {
        "bench.runner.run_bench": run_bench,
        "bench.kernels.runner.run_kernels": run_kernels,
    }.items():
        monkeypatch.setattr(f"braingpt.{name}", once(measure))
    for name, value in SMALLER.items():
        monkeypatch.setattr(f"braingpt.{name}", value)


def names(report: dict) -> str:
    """What a report says it measured."""
    for key in ("run", "contenders", "rows"):
        if key in report:
            return str(report[key])
    raise AssertionError(f"no report: {list(report)}")


@pytest.mark.parametrize("command", REPORTS)
def test_every_form_writes_the_same_report(here, quick, braingpt, capsys, tmp_path, command):
    words, argument, settings = REPORTS[command]
    file = tmp_path / "report.json"
    # The form, where the JSON is expected, and the notice.
    forms = (
        (("--json",), "standard output", None),
        (("--json-file", file), "file", None),
        (("--json", file), "file", NOTICE),
        ((f"--json={file}",), "file", NOTICE),
        (("--json", "-"), "standard output", NOTICE_STANDARD_OUTPUT),
        (("--json=-",), "standard output", NOTICE_STANDARD_OUTPUT),
    )
    keys = set()
    for form, place, notice in forms:
        # The argument follows the option, where it could be taken for a file.
        assert braingpt(*words, *form, argument, *settings) == 0, form
        captured = capsys.readouterr()
        report = json.loads(captured.out if place == "standard output" else file.read_text(encoding="utf-8"))
        assert argument in names(report), form
        assert file.exists() == (place == "file"), form
        assert [line for line in captured.err.splitlines() if "--json" in line] == (
            [notice] if notice else []
        )
        file.unlink(missing_ok=True)
        keys.add(tuple(report))
    assert len(keys) == 1
    assert not Path(argument).is_file()


def test_both_at_once(here, braingpt, capsys, tmp_path):
    file = tmp_path / "report.json"
    assert braingpt("eval", "--json", "--json-file", file, "--windows", 1, *CPU) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "translated"),
    [
        (["--json"], ["--json"]),
        (["--json", "--windows", "1"], ["--json", "--windows", "1"]),
        (["--json", "v1", "v2"], ["--json", "v1", "v2"]),
        (["--json", "2:4 product"], ["--json", "2:4 product"]),
        (["run", "--json-file", "a.json"], ["run", "--json-file", "a.json"]),
        (["--json", "folder.json"], ["--json", "folder.json"]),
        (["--json", "runs/one"], ["--json", "runs/one"]),
        (["--", "--json", "a.json"], ["--", "--json", "a.json"]),
        (["--json", "--", "a.json"], ["--json", "--", "a.json"]),
    ],
)
def test_what_is_no_file_is_left_alone(tmp_path, monkeypatch, capsys, arguments, translated):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "runs/one").mkdir(parents=True)
    assert translate_former_json(arguments) == translated
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "translated"),
    [
        (["--json", "a.json", "run"], ["--json-file", "a.json", "run"]),
        (["run", "--json", "out/A.JSON"], ["run", "--json-file", "out/A.JSON"]),
        (["--json=any/name"], ["--json-file", "any/name"]),
        (["--json", "a.json", "--json", "b.json"], ["--json-file", "a.json", "--json-file", "b.json"]),
        (["run", "--json", "pipe"], ["run", "--json-file", "pipe"]),
        (["--json", "to-a-pipe", "run"], ["--json-file", "to-a-pipe", "run"]),
        (["--json", "/dev/null"], ["--json-file", "/dev/null"]),
        (["--json", "/dev/stdout"], ["--json-file", "/dev/stdout"]),
    ],
)
def test_a_former_file_is_translated_with_one_line(tmp_path, monkeypatch, capsys, arguments, translated):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("to-a-pipe").symlink_to("pipe")
    assert translate_former_json(arguments) == translated
    assert capsys.readouterr().err == f"{NOTICE}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["eval", "--json", "runs/none"],
            "there is no folder runs/none; write JSON to a file with --json-file",
        ),
        (
            ["eval", "--json", "scores.txt"],
            "there is no folder scores.txt; write JSON to a file with --json-file scores.txt",
        ),
        (["calibrate", "--json", "scores"], "there is no run scores"),
        (["bench", "--json", "v1", "v5"], "unknown architecture 'v5'"),
        (["eval", "--json-file", "-"], "--json prints on standard output"),
        (["eval", "--json-file", "data"], "--json-file data is a folder; name a file"),
        (["bench", "kernels", "--json=none/x"], "--json-file none/x: there is no folder none"),
    ],
)
def test_mistakes_are_reported_before_the_work(here, braingpt, capsys, arguments, message):
    assert braingpt(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""


def test_json_is_a_flag_in_every_command():
    found, files = 0, []
    for words, command in walk():
        for parameter in command.params:
            if "--json" in parameter.opts:
                found += 1
                assert parameter.is_flag, words
            if "--json-file" in parameter.opts:
                files.append(" ".join(words))
                assert not parameter.is_flag and isinstance(command, ReportCommand), words
    assert found > 30
    assert sorted(files) == sorted(REPORTS)
