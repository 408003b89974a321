"""Colour only on a terminal, and none under NO_COLOR."""

import os
import pty
import re
import subprocess
import sys

import pytest

COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-7]|38|9[0-7]|4[0-7]|48)[0-9;]*m")
COMMANDS = [
    ["doctor"],
    ["data", "list"],
    ["recipes", "show", "nano-v2"],
    ["data", "sample", "data/sample", "-n", "1"],
]


def on_a_terminal(words: list[str], **environment: str) -> bytes:
    """What a command writes to a terminal of its own."""
    here, there = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "braingpt", *words], env=settings, stdin=there, stdout=there, stderr=there
    ) as process:
        os.close(there)
        written = b""
        while True:
            try:
                part = os.read(here, 1 << 16)
            except OSError:
                # The end of a terminal nobody writes to.
                break
            if not part:
                break
            written += part
        assert process.wait(120) == 0
    os.close(here)
    return written


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_pipe_gets_no_escapes(here, words):
    environment = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "braingpt", *words], env=environment, capture_output=True, check=True
    )
    assert done.stdout and b"\x1b" not in done.stdout + done.stderr


def test_no_color(here):
    for words in (["doctor"], ["data", "sample", "data/sample", "-n", "1"]):
        assert COLOUR.search(on_a_terminal(words))
        assert not COLOUR.search(on_a_terminal(words, NO_COLOR="1"))
    assert not COLOUR.search(on_a_terminal(["--help"]))
