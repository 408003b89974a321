"""`braingpt quickstart` from beginning to end on a moment's training, and the commands that it proposes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from braingpt.cli import invocation, quickstart
from tests.frozen.keys import assert_keys


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("braingpt.train.step_time.STEPS", 3)
    return tmp_path


def test_the_whole_path(here, capsys, braingpt):
    assert braingpt("quickstart", "--minutes", "0.02", "--json") in (None, 0)
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert_keys("quickstart", found)
    # settings that the user did not choose are no concern of theirs
    assert "has no effect" not in captured.err
    assert found["training"]["steps"] >= 20
    assert found["losses"][-1] < found["losses"][0] - 0.5
    assert [text["language"] for text in found["texts"]] == ["ko", "en"] and all(
        text["text"] for text in found["texts"]
    )
    assert set(found["training"]["validation"]["by_language"]) == {"ko", "en"}
    assert (here / "runs" / "quickstart" / "metrics.jsonl").is_file()
    # A moment is too short for sentences, which the command says, with what makes it better.
    said = " ".join(captured.err.split())
    assert "not language yet" in said and "quickstart --minutes 2.25 trains longer" in said
    # The proposed commands work on what quickstart made.
    proposed = [line.strip() for line in captured.err.splitlines() if line.startswith("  braingpt ")]
    assert [shlex.split(line)[1] for line in proposed] == ["generate", "inspect-sparsity", "eval", "data"]
    assert braingpt(*shlex.split(proposed[0])[1:], "--max-new-tokens", "3") in (None, 0)


@pytest.mark.slow
def test_an_interrupted_quickstart_continues(here, capsys, braingpt, monkeypatch):
    from braingpt.train.loop import Trainer

    step = Trainer.take_step
    stops = [7]

    def stopping(trainer):
        step(trainer)
        if trainer.step in stops:
            stops.remove(trainer.step)
            trainer.stop.asked = True

    monkeypatch.setattr(Trainer, "take_step", stopping)
    out = "runs/my run[1]"
    assert braingpt("quickstart", "--minutes", "0.02", "--out", out) == 130
    stopped = capsys.readouterr().err.splitlines()[-1]
    assert "stopped after step 7 of " in stopped
    again = shlex.split(stopped.split("continue with: ")[1])
    assert again == ["braingpt", "quickstart", "--out", out, "--minutes", "0.02"]
    assert braingpt(*again[1:], "--json") in (None, 0)
    captured = capsys.readouterr()
    training = json.loads(captured.out)["training"]
    assert training["taken"] == training["steps"] - 7 and "already prepared" in captured.err
    # A finished one is replaced.
    assert quickstart._unfinished(Path(out)) is None and not Path(out).exists()


def test_ctrl_c_while_the_text_is_prepared_is_one_line(here, capsys, braingpt, monkeypatch):
    def interrupted(screen):
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "_prepare", interrupted)
    assert braingpt("quickstart") == 130
    assert capsys.readouterr().err == "interrupted; continue with: braingpt quickstart\n"
    assert not list(here.iterdir())


STARTER = """
import sys
from braingpt.cli.invocation import *
sys.argv[0] = sys.argv.pop(1)
print(command_line("eval", "a b"), activation(), folder_change(), sep="\\n")
"""


def proposals(script: Path, cwd: Path, **environment: str) -> list[str]:
    """What a process started as `script` in `cwd` proposes: a command, the activation, a change of folder."""
    variables = os.environ | {"PYTHONPATH": str(Path(invocation.__file__).parents[2])} | environment
    command = [sys.executable, "-P", "-c", STARTER, str(script)]
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("place", ["clone", "my clone's"])
def test_commands_work_in_the_shell_that_started_the_process(tmp_path, place):
    clone = tmp_path / place
    script = clone / ".venv" / "bin" / "braingpt"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\nprintf '%s|' ran \"$@\"\n")
    script.chmod(0o755)
    inside, outside = str(clone), str(tmp_path)
    plain = os.defpath
    activated = f"{script.parent}{os.pathsep}{plain}"
    # Where the shell stands, where the process runs, the path of the shell, further variables.
    cases = [
        (inside, clone, plain, {}),
        (outside, tmp_path, plain, {}),
        (inside, clone, activated, {}),
        (inside, clone, activated, {"UV_RUN_RECURSION_DEPTH": "1"}),
        # make -C clone demo
        (outside, clone, plain, {}),
    ]
    for shell, cwd, path, more in cases:
        command, _, change = proposals(script, cwd, PWD=shell, PATH=path, **more)
        line = command if change == "None" else f"{change} && {command}"
        # `uv run` changes the path for its child alone.
        user_path = plain if more else path
        ran = subprocess.run(
            ["sh", "-c", line],
            cwd=shell,
            env={"PATH": user_path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stdout == "ran|eval|a b|", (shell, line, ran.stderr)
        assert (command == "braingpt eval 'a b'") == (path == activated and not more)


def test_a_module_is_proposed_as_a_module(tmp_path):
    command = proposals(Path(invocation.__file__).parents[1] / "__main__.py", tmp_path, PATH=os.defpath)[0]
    assert shlex.split(command) == [sys.executable, "-m", "braingpt", "eval", "a b"]


def test_the_activation_is_of_this_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "my env"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my env" / "bin" / "braingpt")])
    assert invocation.activation() is None
    script = tmp_path / "my env" / "bin" / "activate"
    script.parent.mkdir(parents=True)
    script.touch()
    assert invocation.activation() == "source 'my env/bin/activate'"
