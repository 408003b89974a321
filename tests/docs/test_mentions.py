"""Commands that a page mentions, in running text or in a fence, have these names and options."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from braingpt.cli.main import app
from tests.docs.pages import ROOT
from tests.docs.test_links import files

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# A command in a fence is a line; in running text it stands between backticks.
LINE = re.compile(r"^(?:\$ )?braingpt ([a-z].*)", re.MULTILINE)
INLINE = re.compile(r"`braingpt ([a-z][^`\n]*)`")
END = re.compile(r"\s(?:&&|\|\|?|;|#|>|\.\.\.)(?:\s.*)?$|\s\.\.\.$")


def wrong_word(line: str) -> str | None:
    """The first command or option of `braingpt LINE` that does not exist."""
    command, words = get_command(app), END.sub("", line).split()
    while words and hasattr(command, "commands"):
        # A usage line.
        if words[0] == "[OPTIONS]":
            break
        if words[0] not in command.commands:
            # `bench v1 v2` is short for `bench compare v1 v2`.
            known = getattr(command, "commands", {}).get("compare") if command.name == "bench" else None
            if known is None:
                return None if words[0].startswith("-") else words[0]
            command = known
            break
        command = command.commands[words.pop(0)]
    options = {
        name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    asked = [re.split(r"[=\]\s,;:)]", word.lstrip("[("))[0] for word in words]
    return next(
        (word for word in asked if re.fullmatch(r"--[a-z][a-z-]+", word) and word not in options), None
    )


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for fence in FENCE.findall(text) for line in LINE.findall(fence)] + INLINE.findall(
        FENCE.sub("", text)
    )
    wrong = {line: word for line in lines if (word := wrong_word(line))}
    assert not wrong


def test_a_wrong_command_or_option_is_seen() -> None:
    assert wrong_word("data prepare sample --out DIR") is None
    assert wrong_word("bench v1 v2 dense --size small") is None
    assert wrong_word("data prepair sample") == "prepair"
    assert wrong_word("train --recipe nano-v2 --step 4") == "--step"
