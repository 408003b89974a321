"""Errors of the command line: the nearest name for a typo, and JSON where `--json` is given."""

import json
import os
import signal
import subprocess
import sys

import pytest

from braingpt.cli.console import guarded
from braingpt.errors import Failure, UserError

TYPOS = {
    "trian": "'train'",
    "data prepar sample": "'prepare'",
    "bench kernel": "'kernels'",
    "bench compar v1": "'compare'",
    "bench v9": "'v2'",
    "train --recpie nano-v2": "--recipe",
    "train --recipe nano-v22": "'nano-v2'",
    "train --lr 1e-3": "--set train.lr=VALUE",
    "train --batch-size 3": "--set train.batch=VALUE",
    "train --recipe nano-v2 --set train.learning_rate=1": "'train.lr'",
    "train --recipe nano-v2 --set lr=1": "'train.lr'",
    "recipes show nano-v2 --set hidden_size=64": "'model.hidden'",
    "recipes show nano-v2 --set model.columns.actve=1": "'model.columns.active'",
    "bench v1 --set train.learning_rate=1": "'train.lr'",
    "generate --max 3": "--max-new-tokens",
    "generate --temprature 1": "--temperature",
    "generate --lang kr": "'ko'",
    "eval --tasks perplexty": "'perplexity'",
    "generate --dtype int9": "'int8'",
    "data prepare koraen": "'korean'",
    "tokenizer encode hi --tokenizer gpt3": "'gpt2'",
    "export runs/nano-v2 out --dtype bfloat": "'bfloat16'",
}
# Errors of each kind, and their exit codes.
MISTAKES = {
    "trian --json": 2,
    "train --json --recpie x": 2,
    "train --recipe none --json": 2,
    "eval runs/none --json": 2,
    "generate --temperature x --json": 2,
    "generate --temperature -1 --json": 2,
    "chat runs/none --json": 2,
    "serve runs/none --json": 2,
    "data info none --json": 2,
    "data verify none --json": 2,
    "data prepare none --json": 2,
    "data list --json --none": 2,
    "tokenizer report none --json": 2,
    "recipes show none --json": 2,
    "recipes --json shw": 2,
    "runs show none --json": 2,
    "runs compare one --json": 2,
    "memory list none --json": 2,
    "memory add m --json": 2,
    "bench v9 --json": 2,
    "bench kernels none --json": 2,
    "calibrate runs/none --json": 2,
    "inspect-sparsity runs/none --json": 2,
    "export runs/none out --json": 2,
    "doctor --json --none": 2,
    "quickstart --json --minutes 0": 2,
}


@pytest.mark.parametrize("line", TYPOS)
def test_a_typo_is_answered_with_the_nearest_name(here, braingpt, capsys, line, monkeypatch):
    # Its thousands of tasks, which take ten seconds to read, are left out.
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert braingpt(*line.split()) == 2
    [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("braingpt: ")]
    assert TYPOS[line] in error, error


@pytest.mark.parametrize("line", MISTAKES)
def test_an_error_is_json_where_json_is_asked_for(here, braingpt, capsys, line):
    words = line.split()
    assert braingpt(*words) == MISTAKES[line]
    printed = capsys.readouterr()
    assert printed.out == ""
    error = json.loads(printed.err.splitlines()[-1])["error"]
    assert list(error) == ["kind", "message", "exit_code"]
    assert (error["kind"], error["exit_code"]) == ("user", 2)
    # The same line is for people without --json.
    assert braingpt(*(word for word in words if word != "--json")) == MISTAKES[line]
    assert capsys.readouterr().err.splitlines()[-1] == f"braingpt: {error['message']}"


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (UserError("a [b] 가"), 2, "user"),
        (Failure("damaged"), 1, "failure"),
        (OSError(28, "No space left on device"), 1, "failure"),
        (PermissionError(13, "denied", "file"), 2, "user"),
        (MemoryError(), 1, "failure"),
        (ZeroDivisionError("by zero"), 1, "failure"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_kind_of_error_has_its_code(monkeypatch, here, braingpt, capsys, error, code, kind):
    def fail(*_):
        raise error

    monkeypatch.setattr("braingpt.doctor.examine", fail)
    assert braingpt("doctor") == code
    line = capsys.readouterr().err
    assert line.startswith("braingpt: ") and line.count("\n") == 1
    assert braingpt("doctor", "--json") == code
    printed = json.loads(capsys.readouterr().err)["error"]
    assert printed == {
        "kind": kind,
        "message": line.removeprefix("braingpt: ").rstrip("\n"),
        "exit_code": code,
    }


def test_json_of_one_command_is_not_that_of_the_next(capsys):
    def fail():
        raise UserError("wrong")

    from braingpt.cli.console import expect_json

    expect_json(True)
    assert guarded(fail) == 2
    assert capsys.readouterr().err == "braingpt: wrong\n"


def test_a_problem_found_is_said_after_the_result(here, braingpt, capsys, tmp_path):
    import shutil

    folder = tmp_path / "sample"
    shutil.copytree(here / "data" / "sample", folder)
    next(folder.glob("**/*.bin")).write_bytes(b"")
    assert braingpt("data", "verify", folder, "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["problems"]
    assert json.loads(printed.err)["error"]["kind"] == "failure"


def test_an_interruption_is_json_too(here):
    command = [sys.executable, "-m", "braingpt", "chat", "--json", "--device", "cpu"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write("hello\n")
        process.stdin.flush()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
        last = process.stderr.read().splitlines()[-1]
    assert json.loads(last)["error"] == {"kind": "interrupted", "message": "interrupted", "exit_code": 130}
