"""Where a command writes: every option that names a file, and targets that are no plain file."""

import json
import os
import stat
import threading

import click
import pytest
import typer

from braingpt.cli.main import app

# Options that name a file to write, with the words that make the command quick.
COMMANDS = {
    ("eval", "--json-file"): ["eval", "runs/nano-v2", "--windows", "1", "--context", "32"],
    ("eval", "--html"): ["eval", "runs/nano-v2", "--windows", "1", "--context", "32"],
    ("inspect-sparsity", "--json-file"): ["inspect-sparsity", "runs/nano-v2", "--rounds", "0"],
    ("inspect-sparsity", "--html"): ["inspect-sparsity", "runs/nano-v2", "--rounds", "0"],
    ("calibrate", "--json-file"): ["calibrate", "runs/nano-v1"],
    ("bench kernels", "--json-file"): ["bench", "kernels"],
    ("bench kernels", "--html"): ["bench", "kernels"],
    ("bench compare", "--json-file"): ["bench", "compare", "v1"],
    ("bench compare", "--html"): ["bench", "compare", "v1"],
    ("data report", "--out"): ["data", "report", "data/sample"],
}
# Whose work is quick here.
QUICK = [
    ("eval", "--json-file"), ("eval", "--html"), ("inspect-sparsity", "--html"), ("data report", "--out"),
]  # fmt: skip


def commands(command: click.Command, name: str = "") -> dict[str, click.Command]:
    """All commands that do something, by name."""
    below = getattr(command, "commands", {})
    if not below:
        return {name: command}
    found: dict[str, click.Command] = {}
    for word, one in below.items():
        found |= commands(one, f"{name} {word}".strip())
    return found


def test_the_table_has_every_option_that_names_a_file() -> None:
    every = {
        (name, option)
        for name, command in commands(typer.main.get_command(app)).items()
        for parameter in command.params
        for option in parameter.opts
    }
    assert {pair for pair in every if pair[1] in ("--json-file", "--html")} <= set(COMMANDS) <= every


@pytest.mark.parametrize("pair", COMMANDS, ids=" ".join)
def test_a_target_that_cannot_be_written_is_refused_before_the_work(
    pair, here, braingpt, tmp_path, capsys
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for target, reason in (("folder", "is a folder"), ("loop", "links"), ("no/file", "there is no folder")):
        assert braingpt(*COMMANDS[pair], pair[1], tmp_path / target) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.count("\n") == 1, told.err
        assert f"{pair[1]} {tmp_path / target}" in told.err and reason in told.err


@pytest.mark.parametrize("pair", QUICK, ids=" ".join)
def test_links_are_followed_and_pipes_written_to(pair, here, braingpt, tmp_path) -> None:
    real, link, pipe = (tmp_path / name for name in ("real", "link", "pipe"))
    real.write_text("{}")
    link.symlink_to("real")
    assert braingpt(*COMMANDS[pair], pair[1], link) == 0
    assert link.is_symlink() and len(real.read_text("utf-8")) > 100
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")))
    reader.start()
    assert braingpt(*COMMANDS[pair], pair[1], pipe) == 0
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode) and len(read[0]) > 100
    if pair[1] == "--json-file":
        assert json.loads(read[0]).keys() == json.loads(real.read_text("utf-8")).keys()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "real"]
