"""What a terminal would obey, in every place that a foreign file can put it, is shown and not obeyed."""

import json
import re
import shutil

import pytest

from braingpt.cli.console import console, guarded, print_line
from braingpt.cli.main import app
from braingpt.data.shards.manifest import NAME
from braingpt.utils.hashed_json import hashed
from braingpt.utils.terminal_text import visible, visible_json
from tests.test_crashes import memory_of

BAD = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\rx\u202ey\u2066"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_what_is_shown() -> None:
    assert visible("a\tb\r\nc\n") == "a\tb\nc\n"
    assert visible("\x1b[2J\x9b\r") == r"\x1b[2J\x9b\r"
    assert visible("한글 ‍\u200d é \U0001f600") == "한글 ‍\u200d é \U0001f600"
    for number in range(0x110000):
        if OBEYED.match(char := chr(number)):
            assert not OBEYED.search(visible(char)), hex(number)
            assert json.loads(visible_json(json.dumps(char, ensure_ascii=False))) == char


@pytest.fixture
def hostile(workspace, tmp_path, monkeypatch):
    """A data folder, a run, a memory, a recipe and texts whose every name and text is hostile."""
    from braingpt.episodic.storage import save_memory

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(workspace / "data" / "sample", tmp_path / "data")
    shutil.copytree(workspace / "runs" / "nano-v2", tmp_path / "runs" / f"run{BAD}".replace("/", ""))
    manifest = json.loads((tmp_path / "data" / NAME).read_text("utf-8"))
    manifest["name"] = manifest["braingpt"] = manifest["created"] = BAD
    manifest["filters"] = {BAD: {"read": 5, "kept": 1, "dropped": {BAD: {"documents": 4, "samples": [BAD]}}}}
    manifest["revisions"] = {BAD: BAD}
    del manifest["sha256"]
    (tmp_path / "data" / NAME).write_text(json.dumps(hashed(manifest)), encoding="utf-8")
    memory = memory_of("one", f"two {BAD}")
    memory.about = {"recipe": BAD, "step": BAD}
    save_memory(memory, tmp_path / "memory")
    run = next((tmp_path / "runs").iterdir())
    record = {"kind": "train", "step": 1, "loss": 1.0, "tokens": 1, "seconds": 1, "tokens_per_second": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n" + BAD + "\n", encoding="utf-8")
    shutil.copy(next(run.glob("checkpoints/*/recipe.yaml")), run / "recipe.yaml")
    (tmp_path / "bad.yaml").write_text(
        f"base: nano-v2\ntrain:\n  '{BAD.encode('unicode_escape').decode()}': 1\n"
    )
    (tmp_path / "wrong.yaml").write_text(f"{BAD}: [", encoding="utf-8")
    (tmp_path / f"text{BAD}.txt".replace("/", "")).write_text(f"text {BAD}\n" * 3, encoding="utf-8")
    return tmp_path


COMMANDS = [
    ["memory", "list", "memory"],
    ["memory", "list", "memory", "--json"],
    ["memory", "forget", "memory", "9"],
    ["memory", "forget", "memory", "2"],
    ["memory", "forget", "memory", BAD],
    ["data", "info", "data"],
    ["data", "info", "data", "--json"],
    ["data", "sample", "data"],
    ["data", "verify", "data"],
    ["data", "report", "data", "--out", "page"],
    ["data", "prepare", "text", "RUN", "--out", "out"],
    ["data", "prepare", BAD],
    ["runs", "list"],
    ["runs", "show", "RUN"],
    ["runs", "list", "--json"],
    ["eval", "RUN", "--data", "data", "--windows", "1", "--context", "32"],
    ["generate", BAD],
    ["generate", "RUN", "--lang", BAD],
    ["recipes", "show", "bad.yaml"],
    ["recipes", "show", "wrong.yaml"],
    ["tokenizer", "report", "TEXT"],
    ["tokenizer", "encode", BAD],
    ["tokenizer", "encode", "x", "--tokenizer", BAD],
    ["doctor"],
    [BAD],
    ["train", "--recipe", BAD],
    ["train", "--recipe", "nano-v2", "--set", BAD, "--out", "new"],
    ["eval", "--json-file", f"no/{BAD}"],
]  # fmt: skip


@pytest.mark.parametrize(
    "words", COMMANDS, ids=lambda words: " ".join(words[:2]).encode("unicode_escape").decode()
)
def test_commands_show_it(words, hostile, capfd, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    run, text = next((hostile / "runs").iterdir()), next(hostile.glob("text*"))
    words = [{"RUN": str(run), "TEXT": str(text)}.get(word, word) for word in words]
    if words[:2] == ["data", "prepare"] and len(words) > 3:
        words[3] = str(text)
    code = guarded(lambda: app(words, standalone_mode=False))
    told = capfd.readouterr()
    assert code in (0, 1, 2) and "Traceback" not in told.err, told.err
    for stream in (told.out, told.err):
        assert not (found := OBEYED.search(stream)), stream[max(0, found.start() - 80) : found.end() + 20]


def test_on_a_terminal_with_colour(capsys, monkeypatch) -> None:
    """Only the console's own sequences are left: those of styles."""
    from rich.table import Table
    from rich.text import Text

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = console()
    table = Table(f"head {BAD}", title=BAD)
    table.add_row(BAD)
    table.add_row(Text(BAD, style="bold"))
    for shown in (BAD, Text(BAD), table):
        screen.print(shown, style="red")
    print_line(screen, BAD, style="bold")
    screen.rule(BAD)
    out = capsys.readouterr().out
    assert "\x1b[" in out and not OBEYED.search(re.sub("\x1b\\[[0-9;]*m", "", out))


def test_generated_text_is_exact_in_a_pipe_and_shown_on_a_terminal(capsys, monkeypatch) -> None:
    import sys

    from braingpt.cli.console import print_text

    print_text(BAD)
    assert capsys.readouterr().out == BAD
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    print_text(BAD)
    assert capsys.readouterr().out == visible(BAD)
