"""Every command and its parameters; their help can be rendered.

A wanted change: python -m tests.frozen.record commands
"""

import pytest

from tests.frozen.calls import call, recorded
from tests.frozen.commands import tree, walk


def test_commands_and_parameters_are_those_recorded() -> None:
    found = tree()
    known = recorded("commands", "commands", found)
    assert set(found) == set(known), "commands that are gone or new"
    for command, parameters in found.items():
        assert sorted(parameters) == sorted(known[command]), command


@pytest.mark.parametrize("words", [words for words, _ in walk()], ids=" ".join)
def test_help_is_rendered(words: tuple[str, ...], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(*words, "--help")
    assert "Usage:" in shown and "--help" in shown
