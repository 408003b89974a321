"""Every command on a terminal whose encoding lacks characters: it prints, and keeps those that there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from braingpt.cli import main
from braingpt.cli.streams import guard_streams
from braingpt.utils.terminal_text import visible_json
from tests.cli.test_closed_pipes import CASES, place, run  # noqa: F401
from tests.cli.test_output_targets import commands

STRANGE = "가격 ½ 😀 뷁 é — €"
MORE: dict[str, list[str]] = {
    "eval": ["eval", "runs/nano-v2", "--windows", "1", "--context", "32"],
    "inspect-sparsity": ["inspect-sparsity", "runs/nano-v2", "--rounds", "1"],
    "generate": ["generate", "runs/nano-v2", "--prompt", STRANGE, "--max-new-tokens", "9"],
    "generate --json": ["generate", "runs/nano-v2", "--prompt", STRANGE, "--max-new-tokens", "9", "--json"],
    "tokenizer encode": ["tokenizer", "encode", STRANGE],
    "tokenizer encode --json": ["tokenizer", "encode", STRANGE, "--json"],
    "tokenizer add-language": ["tokenizer", "add-language", "pt", "{}/a.jsonl", "--out", "{}/pt"],
    "memory list": ["memory", "list", "{}/memory"],
    "memory list --json": ["memory", "list", "{}/memory", "--json"],
    "memory forget": ["memory", "forget", "{}/memory", "1"],
    "data sample --json": ["data", "sample", "data/sample", "--json"],
    "data report": ["data", "report", "data/sample", "--out", f"{{}}/{STRANGE}"],
    "runs show": ["runs", "show", "TRAINED"],
    "runs compare": ["runs", "compare", "TRAINED", "TRAINED"],
    "calibrate": ["calibrate", "runs/nano-v1", "--data", "data/sample"],
    "bench": ["bench", "--help"],
    "help of train": ["train", "--help"],
    "help of eval": ["eval", "--help"],
}
WRONG = {
    "a name": (["generate", STRANGE], 2),
    "an option": (["train", f"--{STRANGE}"], 2),
    "a command": ([STRANGE], 2),
    "a value": (["train", "--recipe", "nano-v2", "--set", STRANGE], 2),
}
# Where Korean is printed.
KOREAN = ("generate", "tokenizer encode", "memory list", "memory forget", "data sample")
# What a table of another module gives as (words, file), here words alone.
COMMANDS = {name: words for name, (words, _) in CASES.items()} | MORE
LEFT_OUT = {"quickstart", "serve", "bench compare", "bench kernels", "data join", "data search", "memory add"}


def printed(words: list[str], encoding: str, folder: Path) -> tuple[int, bytes, bytes]:
    """The exit code and both outputs of a command whose streams are of that encoding."""

    def prepare() -> None:
        for number, name in enumerate(("stream0", "stream1", "stream2")):
            file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)

    def opened(number: int, mode: str):
        # As Python opens them.
        kind = "backslashreplace" if number == 2 else "strict"
        return os.fdopen(number, mode, encoding=encoding, errors=kind, closefd=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.cli.test_closed_pipes._stream", opened)
        code = run(words, prepare)
    return code, (folder / "stream1").read_bytes(), (folder / "stream2").read_bytes()


@pytest.fixture
def folder(place) -> Path:  # noqa: F811
    from braingpt.episodic.storage import save_memory
    from tests.test_crashes import memory_of

    save_memory(memory_of("하나 둘", STRANGE), place / "memory")
    return place


def test_the_table_has_every_command_that_prints() -> None:
    names = {" ".join(word for word in words[:2] if word.islower()) for words in COMMANDS.values()}
    assert {name for name in commands(typer.main.get_command(main.app)) if name not in LEFT_OUT} <= {
        *COMMANDS, *names,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "encoding"), [(name, "ascii") for name in COMMANDS] + [(name, "cp949") for name in KOREAN]
)
def test_every_command_prints(name, encoding, folder, trained) -> None:
    names = {"TRAINED": str(trained / "runs" / "nano-v2")}
    words = [names.get(word, word).replace("{}", str(folder)) for word in COMMANDS[name]]
    code, out, err = printed(words, encoding, folder)
    assert code == 0, err
    assert b"Error" not in err and b"Traceback" not in err
    text = out.decode(encoding)
    assert text or err
    if "--json" in words:
        # Nothing is lost: what the encoding lacks is an escape.
        value = json.loads(text)
        if STRANGE in words:
            assert STRANGE in (value.get("prompt"), value.get("text"))
    elif encoding == "cp949":
        assert any("가" <= char <= "힣" for char in text)


@pytest.mark.parametrize("encoding", ["ascii", "cp949"])
@pytest.mark.parametrize("name", WRONG)
def test_every_error_is_one_line(name, encoding, folder) -> None:
    words, expected = WRONG[name]
    code, out, err = printed(words, encoding, folder)
    assert (code, out) == (expected, b"") and err.startswith(b"braingpt: ") and err.count(b"\n") == 1, err
    assert "Error" not in err.decode(encoding)


def test_generated_text_is_replaced_only_where_it_must_be(folder) -> None:
    words = ["generate", "runs/nano-v2", "--prompt", STRANGE, "--max-new-tokens", "0"]
    expected = {
        "utf-8": STRANGE,
        "cp949": "가격 ½ ? 뷁 ? ? €",
        "latin-1": "?? ½ ? ? é ? ?",
        "ascii": "?? ? ? ? ? ? ?",
    }
    for encoding, text in expected.items():
        assert printed(words, encoding, folder)[1].decode(encoding) == text + "\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp949"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
    ids=str,
)
def test_the_interpreter_in_such_a_place(environment, here, monkeypatch) -> None:
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    for words in (["data", "sample", "data/sample", "-n", "3"], ["data", "info", "data/sample"]):
        command = [sys.executable, "-P", "-m", "braingpt", *words]
        done = subprocess.run(command, capture_output=True, check=False, env=os.environ | environment)
        assert done.returncode == 0 and done.stdout and not done.stderr, done.stderr
        if environment.get("PYTHONIOENCODING") == "cp949" and "sample" in words:
            assert any("가" <= char <= "힣" for char in done.stdout.decode("cp949"))


def test_the_users_own_way_of_replacing_stays(monkeypatch, capfd) -> None:
    import io

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="xmlcharrefreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    guard_streams()
    assert sys.stdout.errors == "xmlcharrefreplace"


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "latin-1", "utf-8"])
def test_json_keeps_every_character(encoding) -> None:
    for text in (STRANGE, "\udceb\ud800", "\x1b\u2028", "한글"):
        line = visible_json(json.dumps(text, ensure_ascii=False), encoding)
        assert json.loads(line.encode(encoding).decode(encoding)) == text
    assert "한글" in visible_json('"한글"', "cp949")
