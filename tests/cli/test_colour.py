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
def test_what_is_no_terminal_gets_no_escapes(here, braingpt, monkeypatch, capfd, words):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert braingpt(*words) == 0
    out, err = capfd.readouterr()
    assert out and "\x1b" not in out + err


def test_no_color(here):
    words = ["data", "sample", "data/sample", "-n", "1"]
    assert COLOUR.search(on_a_terminal(words))
    assert not COLOUR.search(on_a_terminal(words, NO_COLOR="1"))
    assert not COLOUR.search(on_a_terminal(["--help"]))
