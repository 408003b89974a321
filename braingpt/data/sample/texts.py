"""Reads `texts/<language>/`: word lists, tables and stories, kept as plain text so that a native reader can
check them without reading code.

`words.txt`: `key: item | item` a line. `<table>.txt`: one row a line, fields separated by `;`.
    `<stories>.txt`: `# name` opens a story; each block of lines is one beat (one place in the text), its
    lines are the alternatives, a lone `-` leaves the beat out, a lone `¶` starts a paragraph. `(name)`,
    `(?name)` and `(!name)` before an alternative tie it to those of other beats (`grammar.py`). Lines that
    open with `//` are remarks.
"""

from functools import cache
from importlib.resources import files

from braingpt.data.sample.grammar import Beat


def _lines(language: str, name: str) -> list[str]:
    text = (
        files("braingpt.data.sample").joinpath("texts", language, f"{name}.txt").read_text(encoding="utf-8")
    )
    return [line.strip() for line in text.splitlines() if not line.startswith("//")]


def items(field: str) -> list[str]:
    """The items of a field: `a | b` -> [a, b]."""
    return [item.strip() for item in field.split("|")]


@cache
def words(language: str) -> dict[str, list[str]]:
    """Word lists by key."""
    pairs = (line.split(":", 1) for line in _lines(language, "words") if line)
    return {key.strip(): items(value) for key, value in pairs}


@cache
def table(language: str, name: str) -> list[list[str]]:
    """Rows of fields."""
    return [[field.strip() for field in line.split(";")] for line in _lines(language, name) if line]


@cache
def stories(language: str, name: str) -> dict[str, list[Beat]]:
    """Stories by name, each a list of beats for `grammar.tell`."""
    by_name: dict[str, list[Beat]] = {}
    beats: list[Beat] = []
    beat: list[str] = []
    for line in [*_lines(language, name), ""]:
        if line.startswith("# "):
            beats = by_name.setdefault(line[2:], [])
        elif line:
            beat.append(line)
        elif beat:
            options = tuple("" if option == "-" else option for option in beat)
            beats.append("\n" if beat == ["¶"] else options)
            beat = []
    return by_name
