"""Completion: what bash, zsh and fish are told, without torch; and the scripts that ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
from braingpt.cli.main import run
try:
    run()
finally:
    print("heavy" if {"torch", "datasets", "transformers"} & set(sys.modules) else "light", file=sys.stderr)
"""


def ask(shell: str, line: str, **environment: str) -> list[str]:
    """What a shell proposes behind a line."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ | asked | {"_BRAINGPT_COMPLETE": f"complete_{shell}"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "light\n"
    if shell == "zsh":
        inside = done.stdout.partition("((")[2].partition("))'")[0]
        return [one.partition('":')[0].strip('"') for one in inside.splitlines()]
    return [one.partition("\t")[0] for one in done.stdout.splitlines() if one]


# What is typed, and what must be among the proposals.
PROPOSALS = {
    "braingpt tr": ["train"],
    "braingpt data pre": ["prepare"],
    "braingpt train --re": ["--recipe", "--resume"],
    "braingpt train --recipe tiny-v": ["tiny-v1", "tiny-v2"],
    "braingpt train --data ": ["data/sample"],
    "braingpt train --set train.l": ["train.lr=", "train.lengths=", "train.loggers="],
    "braingpt train --resume ": ["auto", "runs/nano-v1", "runs/nano-v2"],
    "braingpt train --device ": ["auto", "cpu", "cuda"],
    "braingpt generate ": ["runs/nano-v1", "runs/nano-v2"],
    "braingpt generate runs/nano-v2/": ["runs/nano-v2/checkpoints/step-0000007"],
    "braingpt generate --lang ": ["ko", "en", "de", "fr", "es", "it"],
    "braingpt chat --la": ["--lang"],
    "braingpt eval --against runs/": ["runs/nano-v1", "runs/nano-v2"],
    "braingpt data prepare s": ["simple", "sample"],
    "braingpt data info ": ["data/sample"],
    "braingpt bench ": ["compare", "kernels", "dense", "v1", "v2"],
    "braingpt bench v1 v": ["v1", "v2"],
    "braingpt bench dense --size ": ["nano", "tiny", "small"],
    "braingpt runs compare nano-v": ["nano-v1", "nano-v2"],
    "braingpt recipes show xlarge-de": ["xlarge-dense", "xlarge-dense-active"],
    "braingpt tokenizer encode --tokenizer ": ["gpt2", "cl100k_base", "o200k_base"],
    "braingpt generate --dtype ": ["float32", "int8"],
}


@pytest.mark.parametrize("line", PROPOSALS)
def test_proposals(here, line):
    assert set(PROPOSALS[line]) <= set(ask("bash", line))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    "line", ["braingpt ru", "braingpt train --recipe nano-v", "braingpt recipes show --set model.h"]
)
def test_every_shell_is_told_the_same(here, shell, line):
    expected = {
        "ru": ["runs"],
        "nano-v": ["nano-v1", "nano-v2"],
        "model.h": ["model.hidden=", "model.heads=", "model.head.kind=", "model.head.width="],
    }[line.split()[-1]]
    assert ask(shell, line) == expected


def test_names_that_do_not_exist_leave_files_to_the_shell(here):
    assert ask("bash", "braingpt generate other/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_script_is_shown_and_installed(tmp_path: Path, shell):
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "braingpt"]
    shown = subprocess.run(
        [*command, "--show-completion", shell], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "_BRAINGPT_COMPLETE" in shown and "braingpt" in shown and "python" not in shown
    if shell == "powershell":
        return
    installed = subprocess.run(
        [*command, f"--install-completion={shell}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [path] = [path for path in tmp_path.rglob("*braingpt*")]
    assert path.read_text().strip() == shown.strip() and str(path) in installed


def test_bash_completes(tmp_path: Path, here):
    """Through bash itself: the script is read, and its function called as bash does."""
    bash = shutil.which("bash")
    assert bash
    command = tmp_path / "braingpt"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m braingpt "$@"\n')
    command.chmod(0o755)
    script = """
    eval "$(braingpt --show-completion bash)"
    COMP_WORDS=(braingpt train --recipe tiny-v) COMP_CWORD=3
    $(complete -p braingpt | sed 's/.*-F \\([^ ]*\\).*/\\1/') braingpt
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["tiny-v1", "tiny-v2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show-completion", "zs"], "unknown shell 'zs'; did you mean 'zsh'?"),
        (["--install-completion=tcsh"], "unknown shell 'tcsh'"),
    ],
)
def test_unknown_shells(braingpt, capsys, words, message):
    assert braingpt(*words) == 2
    assert message in capsys.readouterr().err


def test_a_shell_that_cannot_be_told_must_be_named(braingpt, capsys, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("sh", "/bin/sh"))
    assert braingpt("--show-completion") == 2
    assert "name it: braingpt --show-completion bash" in capsys.readouterr().err
