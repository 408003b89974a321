"""Paths as users have them: brackets, spaces, bytes that are not UTF-8, other working folders, own output."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import braingpt
from braingpt.cli.console import console, print_line
from braingpt.data.prepare.pipeline import Request, prepare
from braingpt.data.shards.manifest import prepare_command
from braingpt.errors import UserError
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer
from braingpt.train.loop import train
from braingpt.train.plan.plan import build_plan
from braingpt.train.preflight import many_epochs
from braingpt.utils.paths import check_folder, is_utf8, printable, require_utf8, shell_word
from tests.tiny_runs import prepared, tiny

# A word that rich would read as markup, as a picture, or as a style.
NAMES = ("exp[lr=1e-3]", "a[/b]", ":smile:", "[bold]x", "한 글", "it's", "[link=x]y")
NOT_UTF8 = os.fsdecode(b"\xb8\xbb\xb9\xb6")
TEXT = (
    "어제 저녁에는 동생과 함께 강가를 천천히 걸으며 이야기를 나누었다. "
    "도서관 삼 층 창가 자리는 아침 햇빛이 들어와서 책을 읽기에 좋다.\n"
)
STEPS = [part for step in ("train.steps=1", "train.context=8", "train.batch=1") for part in ("--set", step)]


@pytest.mark.parametrize("name", NAMES)
def test_every_way_of_printing_shows_a_name_as_it_is(name):
    screen = console()
    screen.file = io.StringIO()
    screen.print(name)
    screen.print(f"one {name}", soft_wrap=True)
    print_line(screen, f"line {name}")
    table = Table(title=f"title {name}")
    table.add_column(f"head {name}", no_wrap=True)
    table.add_row(f"cell {name}")
    screen.print(table)
    screen.rule(f"rule {name}")
    with screen.capture() as captured:
        for line in (screen.status(f"status {name}"),):
            screen.print(line.renderable)
            line.update(f"update {name}")
            screen.print(line.renderable)
    shown = screen.file.getvalue() + captured.get()
    for where in ("one", "line", "title", "head", "cell", "rule", "status", "update"):
        assert f"{where} {name}" in shown, (where, shown)


def test_nothing_of_rich_reads_markup_elsewhere():
    """One console for all commands; columns of progress have a switch of their own."""
    package = Path(braingpt.__file__).parent
    for file in package.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "from_markup" not in source, file
        assert "Console(" not in source.replace("Screen(Console)", "") or file.name == "console.py", file
        columns = re.findall(r"TextColumn\([^)]*\{[^)]*\)", source)
        assert all("markup=False" in column for column in columns), (file, columns)


@pytest.mark.parametrize("name", [name for name in NAMES if set(name) & set("=/' ")])
def test_a_run_of_any_name_is_made_listed_and_offered_for_copying(
    name, tmp_path, data, monkeypatch, capsys, braingpt
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    run = f"runs/{name}"
    words = ["--recipe", "nano-dense", "--data", data, "--out", run, "--device", "cpu", *STEPS]
    assert braingpt("train", *words) == 0
    out = capsys.readouterr().out
    assert f"report {run}/report.md" in out
    offered = out.splitlines()[-1].removeprefix("next: ").split("   ")
    assert [shlex.split(command) for command in offered] == [
        ["braingpt", "generate", run],
        ["braingpt", "eval", run],
    ]
    assert braingpt("export", run, f"out {name}") == 0 and f"out {name}" in capsys.readouterr().out
    assert braingpt("runs", "list") == 0
    listed = capsys.readouterr().out
    # A run in a folder of a run is not listed.
    assert f"\n{name} " in listed or "/" in name


def test_words_of_a_command():
    for name in (*NAMES, "-x", "plain", "$HOME"):
        word = shell_word(name)
        [back] = shlex.split(word)
        assert Path(back) == Path(name) and not back.startswith("-")
    for folder in ("data/한 글", "a b/korean"):
        assert shlex.split(prepare_command(Path(folder)))[-1] == folder


def test_bytes_that_are_not_utf8_are_shown_and_read_but_not_written(tmp_path, monkeypatch, capsys, braingpt):
    monkeypatch.chdir(tmp_path)
    assert not is_utf8(NOT_UTF8) and printable(f"a{NOT_UTF8}b") == r"a\xb8\xbb\xb9\xb6b"
    Path(f"{NOT_UTF8}.txt").write_text(TEXT, encoding="utf-8")
    # The file by its name, and the folder it is in.
    for number, path in enumerate((f"{NOT_UTF8}.txt", ".")):
        words = ["data", "prepare", "text", path, "--out", f"out{number}", "--workers", "1"]
        assert braingpt(*words) == 0
        assert braingpt(*words) == 0 and "already prepared" in capsys.readouterr().out
    assert r"\xb8" in (tmp_path / "out0" / "manifest.json").read_text(encoding="utf-8")


OUTPUTS = [
    ["train", "--recipe", "nano-dense", "--out", "BAD"],
    ["data", "prepare", "sample", "--out", "BAD"],
    ["data", "prepare", "text", "text.txt", "--out", "BAD"],
    ["data", "join", "data/sample", "--out", "BAD"],
    ["tokenizer", "train", "text.txt", "--out", "BAD"],
    ["tokenizer", "add-language", "pt", "text.txt", "--out", "BAD"],
    ["quickstart", "--out", "BAD"],
    ["export", "runs/nano-v2", "BAD"],
    ["eval", "--json-file", "BAD"],
    ["eval", "--html", "BAD"],
    ["memory", "add", "BAD", "text"],
    ["bench", "v1", "--out", "BAD"],
    ["bench", "v1", "--json-file", "BAD"],
    ["bench", "kernels", "--json-file", "BAD"],
    ["inspect-sparsity", "--html", "BAD"],
    ["calibrate", "--json-file", "BAD"],
    ["generate", "--prompt", "BAD"],
]


@pytest.mark.parametrize("words", OUTPUTS, ids=lambda words: " ".join(words[:3]))
def test_no_output_has_a_name_that_is_not_utf8(words, here, capsys, monkeypatch):
    from braingpt.cli.console import guarded
    from braingpt.cli.main import _checked_app

    monkeypatch.setattr("braingpt.train.loop.Trainer", None)
    monkeypatch.setattr("braingpt.cli.options.open_run", None)
    before = sorted(here.rglob("*"))
    arguments = [word.replace("BAD", f"x-{NOT_UTF8}") for word in words]
    monkeypatch.setattr(sys, "argv", ["braingpt", *arguments])
    assert guarded(_checked_app) == 2
    error = capsys.readouterr().err
    assert r"x-\xb8\xbb\xb9\xb6" in error and "UTF-8" in error and error.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_folders_are_checked_from_python_too(tmp_path, data):
    bad = tmp_path / NOT_UTF8
    calls = (
        lambda: train(tiny("dense"), bad, [data]),
        lambda: prepare(Request("sample", bad), Tokenizer.default()),
        lambda: Tokenizer.default().save(bad),
        lambda: check_folder(bad),
        lambda: require_utf8(bad),
    )
    for call in calls:
        with pytest.raises(UserError, match="not UTF-8"):
            call()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("absent")
    for name, reason in (
        ("file", "is a file"),
        ("file/below", "is a file"),
        ("nowhere", "a link to nothing"),
        ("n" * 300, "name another folder"),
        ("한" * 90, "name another folder"),
        ("a/" * 3000, "name another folder"),
    ):
        with pytest.raises(UserError, match=reason):
            check_folder(tmp_path / name)
    check_folder(tmp_path / "a" / "b" / "c")


def text_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    return folder


def test_own_output_below_the_texts_is_no_text(tmp_path, monkeypatch, capsys, braingpt):
    monkeypatch.chdir(tmp_path)
    text_folder(Path("data"))
    words = ["data", "prepare", "text", "data", "--workers", "1"]
    assert braingpt(*words) == 0
    first = json.loads(Path("data/text/manifest.json").read_text())
    assert braingpt(*words) == 0 and "is already prepared" in capsys.readouterr().out
    assert braingpt(*words, "--force") == 0
    assert "folders that braingpt wrote are left out: data/text" in capsys.readouterr().out
    again = json.loads(Path("data/text/manifest.json").read_text())
    # The time of the preparation, and the hash over it.
    assert {key for key in again if again[key] != first[key]} <= {"created", "sha256"}
    # A tokenizer, a run and an export there, and whoever else reads texts.
    small = ["--recipe", "nano-dense", "--data", "data/text", "--device", "cpu", *STEPS]
    assert braingpt("train", *small, "--out", "data/run") == 0
    assert braingpt("export", "data/run", "data/model") == 0
    Tokenizer.default().save(Path("data/tok"))
    assert braingpt(*words) == 0 and "is already prepared" in capsys.readouterr().out
    assert braingpt("tokenizer", "report", "data", "--json") == 0
    assert '"skipped": 0' in capsys.readouterr().out
    for own in ("data/text", "data/run", "data/model", "data/tok"):
        assert braingpt("data", "prepare", "text", own, "--out", "other") == 2
        assert "that braingpt wrote; name the folder of your texts" in capsys.readouterr().err


def test_a_run_finds_its_data_from_anywhere(tmp_path, monkeypatch, capsys, braingpt):
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "deep").mkdir(parents=True)
    prepared(tmp_path / "a" / "data" / "mine")
    monkeypatch.chdir(tmp_path / "a")
    words = ["--recipe", "nano-dense", "--data", "data/mine", "--out", "runs/one", "--device", "cpu"]
    assert braingpt("train", *words, *STEPS) == 0
    for folder, run in (("b", "../a/runs/one"), ("b/deep", "../../a/runs/one"), ("a/runs", "one")):
        monkeypatch.chdir(tmp_path / folder)
        assert braingpt("eval", run, "--device", "cpu", "--windows", "1") == 0, capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "b" / "deep")
    more = ["--resume", "auto", "--out", "../../a/runs/one", "--device", "cpu", "--set", "train.steps=2"]
    assert braingpt("train", *more) == 0
    # Where they went away, the message names the folder that was looked in.
    shutil.rmtree(tmp_path / "a" / "data")
    capsys.readouterr()
    assert braingpt("eval", "../../a/runs/one", "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert "does not exist" in error and f"looked in {Path.cwd()}" in error and "--data" in error


def test_the_home_folder_and_the_recipes_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    prepared(project / "data" / "mine")
    (project / "recipes").mkdir()
    recipe = project / "recipes" / "r.yaml"
    recipe.write_text("extends: nano-v2\ndata: {folders: ['~/ko', data/mine, data/absent]}\n")
    monkeypatch.chdir(tmp_path)
    found = load_recipe(recipe).data.folders
    assert found == (str(tmp_path / "home" / "ko"), str(project / "data" / "mine"), "data/absent")
    monkeypatch.chdir(project)
    assert load_recipe("recipes/r.yaml").data.folders[1:] == ("data/mine", "data/absent")
    assert load_recipe("nano-v2", ["data.folders=['~/x']"]).data.folders == (str(tmp_path / "home" / "x"),)


def test_all_missing_folders_are_named_at_once_with_enough_tokens(tmp_path, monkeypatch, capsys, braingpt):
    monkeypatch.chdir(tmp_path)
    assert braingpt("train", "--recipe", "tiny-v2", "--device", "cpu", "--set", "train.steps=1000",
                    "--set", "data.folders=[data/simple, data/fineweb2, 'x y/c4', other]") == 2  # fmt: skip
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "data/simple, data/fineweb2, x y/c4 and other do not exist" in error
    commands = error.partition("make them with: ")[2].partition(" (looked")[0].split(" && ")
    assert [shlex.split(command)[3] for command in commands] == ["simple", "fineweb2", "c4", "NAME"]
    limits = [shlex.split(command)[-1] for command in commands if "--max-tokens" in command]
    assert len(limits) == 2 and all(limit[-1] in "kMB" for limit in limits)
    # Together they are what the recipe reads, and not much more.
    from braingpt.cli.data.prepare import _parse_count

    recipe = load_recipe("tiny-v2").train
    share = 1000 * recipe.batch * recipe.context / 4
    assert share <= _parse_count(limits[1]) <= 1.1 * share


def test_many_epochs_of_a_small_corpus_are_told_before_the_first_step(tmp_path, data, capsys, braingpt):
    recipe = tiny("dense", "train.steps=100000")
    few = build_plan(recipe, 10**9, epochs_by_language={"ko": 1.0, "en": 16.0})
    assert many_epochs(few) is None
    one = build_plan(recipe, 10**9, epochs_by_language={"ko": 1.0, "en": 400.0})
    line = many_epochs(one) or ""
    assert "reads the texts in 'en' 400 times" in line and "train.steps=4000 " in line
    words = ["--recipe", "nano-dense", "--data", data, "--device", "cpu", "--set", "train.steps=100000"]
    assert braingpt("train", "--plan", *words) == 0
    assert "reads the data" in capsys.readouterr().out


def test_words_of_other_systems_are_refused_by_the_command_itself():
    command = [sys.executable, "-P", "-m", "braingpt", "train", "--recipe", b"\xb8"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2 and rb"the argument \xb8 is not UTF-8" in done.stderr
