"""`braingpt memory` and `generate --memory` as a user calls them; the recall runs in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from braingpt.cli.console import guarded
from braingpt.cli.main import app


def braingpt(*arguments) -> int:
    return guarded(lambda: app([str(argument) for argument in arguments], standalone_mode=False))


@pytest.fixture
def here(trained, tmp_path, monkeypatch, calibrated):
    """The trained folder as current one; making a memory takes the fitted keys and gate that are there."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("braingpt.episodic.memory.calibrate", lambda *_: (calibrated.maker, calibrated.gate))
    return tmp_path


def test_taught_here_recalled_in_a_new_process_and_forgotten(here, capsys, trained):
    file = here / "facts.memory"
    (here / "more.txt").write_text(
        "The little cat that came to our house last week is called Biscuit.\n\n", encoding="utf-8"
    )
    assert (
        braingpt(
            "memory",
            "add",
            file,
            "지난주에 우리 집에 온 작은 고양이의 이름은 콩이예요.",
            "--file",
            here / "more.txt",
            "--json",
            "--device",
            "cpu",
        )
        == 0
    )
    added = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in added["texts"]] == [1, 2] and all(
        one["new"] and one["entries"] > 0 for one in added["texts"]
    )

    def written(prompt: str, *more: str) -> str:
        command = [
            sys.executable,
            "-m",
            "braingpt",
            "generate",
            "--prompt",
            prompt,
            "--temperature",
            "0",
            "--max-new-tokens",
            "12",
            "--json",
        ]
        done = subprocess.run(
            [*command, "--device", "cpu", *more],
            capture_output=True,
            text=True,
            check=True,
            cwd=trained,
            env=os.environ,
        )
        return json.loads(done.stdout)["text"]

    assert written("지난주에 우리 집에 온 작은 고양이의 이름은", "--memory", str(file)) == " 콩이예요."
    assert (
        braingpt(
            "generate",
            "--prompt",
            "The little cat that came to our house last week is called",
            "--temperature",
            0,
            "--memory",
            file,
            "--device",
            "cpu",
        )
        == 0
    )
    assert capsys.readouterr().out == "The little cat that came to our house last week is called Biscuit.\n"
    assert (
        braingpt(
            "generate",
            "--prompt",
            "The little cat that came to our house last week is called",
            "--temperature",
            0,
            "--max-new-tokens",
            12,
            "--device",
            "cpu",
        )
        == 0
    )
    assert "Biscuit" not in capsys.readouterr().out

    assert braingpt("memory", "list", file) == 0
    listed = capsys.readouterr().out
    assert (
        listed.startswith("1  지난주에 우리 집에 온 작은 고양이의 이름은 콩이예요.  (")
        and "2 texts, " in listed
        and "of nano-v2, step 60" in listed
    )
    assert braingpt("memory", "forget", file, 2) == 0
    assert (
        capsys.readouterr().out
        == "forgotten: 2  The little cat that came to our house last week is called Biscuit.\n"
    )
    assert braingpt("memory", "forget", file, "all", "--json") == 0
    assert [text["number"] for text in json.loads(capsys.readouterr().out)["forgotten"]] == [1]
    assert braingpt("memory", "list", file, "--json") == 0
    left = json.loads(capsys.readouterr().out)
    assert left["texts"] == [] and left["entries"] == 0


def test_mistakes_are_one_line_and_exit_2(here, capsys):
    file = here / "m"
    assert braingpt("memory", "add", file, "하나", "--device", "cpu") == 0
    capsys.readouterr()
    raw = file.read_bytes()
    for arguments, message in (
        (["add", file], "there is nothing to remember"),
        (["add", file, " "], "there is nothing to remember"),
        (["add", here, "text"], "is a folder; name a file"),
        (["add", here / "no" / "m", "text"], "there is no folder"),
        (["add", file, "text", "--lang", "kr"], "unknown language 'kr'"),
        (["add", file, "text", "--run", "nowhere"], "there is no run nowhere"),
        (["add", file, "--file", here / "no.txt"], "there is no text file"),
        (["forget", file, "7"], "has no text number 7; it has 1"),
        (["forget", file, "-x"], "no option -x"),
        (["list", here / "none"], "there is no memory file"),
    ):
        assert braingpt("memory", *arguments) == 2, arguments
        captured = capsys.readouterr()
        assert (
            message in captured.err.splitlines()[-1]
            and captured.err.count("braingpt:") == 1
            and captured.out == ""
        )
    assert file.read_bytes() == raw
    file.write_bytes(raw[:-1])
    assert braingpt("generate", "--memory", file, "--device", "cpu") == 2
    assert "damaged or not a memory file" in capsys.readouterr().err


def test_processes_that_add_and_forget_at_once_lose_nothing(here, capfd):
    """The model is loaded before the processes part, so that they meet at the file."""
    file = here / "shared.memory"
    assert braingpt("memory", "add", file, "처음", "--device", "cpu") == 0
    (here / "link.memory").symlink_to(file)

    def work(number: int) -> int:
        name = file if number % 2 else here / "link.memory"
        codes = [
            braingpt(
                "memory", "add", name, f"text {number} of process {number}, part {part}", "--device", "cpu"
            )
            for part in range(3)
        ]
        return max(codes) or (0 if number else braingpt("memory", "forget", name, 1))

    processes = []
    for number in range(4):
        if not (process := os.fork()):
            os._exit(work(number))
        processes.append(process)
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0] * 4
    capfd.readouterr()
    assert braingpt("memory", "list", file, "--json") == 0
    texts = json.loads(capfd.readouterr().out)["texts"]
    assert {one["text"] for one in texts} == {
        f"text {number} of process {number}, part {part}" for number in range(4) for part in range(3)
    }
    assert [one["number"] for one in texts] == list(range(2, 14)) and (here / "link.memory").is_symlink()
    assert sorted(os.listdir(here)) == ["link.memory", "shared.memory"]


def test_a_long_addition_shows_how_far_it_is_and_how_long_it_takes(here, capsys, monkeypatch):
    from braingpt.cli import progress_bar

    monkeypatch.setattr(progress_bar, "PLAIN_SECONDS", 0.0)
    (here / "texts").write_text("The cat is called Biscuit.\nThe dog is called Rex.\n" + "A. " * 900)
    assert braingpt("memory", "add", "m", "--file", here / "texts", "--lang", "en") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "%" in line]
    assert "text 1 of 3" in lines[0] and "100%  text 3 of 3" in lines[-1] and "left" in lines[-2]


def test_a_short_addition_is_silent(here, capsys):
    assert braingpt("memory", "add", "m", "The cat is called Biscuit.") == 0
    assert "%" not in capsys.readouterr().err
