"""Help texts of all commands: their form, their width, their examples; without heavy imports."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from braingpt.cli.command import Command, Group, about_of, examples_of
from braingpt.cli.main import app
from braingpt.recipes import load_recipe
from tests.frozen.commands import walk

COMMANDS = dict(walk())
WITHOUT_HEAVY_IMPORTS = """
import sys
from braingpt.cli.console import guarded
from braingpt.cli.main import app
sys.argv = ["braingpt", *sys.argv[1:]]
code = guarded(lambda: app(standalone_mode=False))
heavy = {"torch", "numpy", "rich", "safetensors"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else code)
"""


def shown(*words: str, columns: int = 80, **environment: str) -> str:
    """What a command prints, which must end well."""
    result = CliRunner().invoke(app, words, env={"COLUMNS": str(columns), **environment})
    assert result.exit_code == 0, result.output
    return result.stdout


def example_lines() -> list[str]:
    return [line for command in COMMANDS.values() for line in examples_of(command.help)]


@pytest.mark.parametrize(
    "words", [(), ("eval",), ("data", "prepare"), ("bench",), ("bench", "kernels")], ids=" ".join
)
def test_help_imports_nothing_heavy(words):
    command = [sys.executable, "-c", WITHOUT_HEAVY_IMPORTS, *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: braingpt" in done.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_option_for_help_groups_and_examples(words):
    command = COMMANDS[words]
    assert isinstance(command, Command | Group)
    text = shown(*words, "-h")
    assert text == shown(*words, "--help")
    assert "-h, --help" in text and "\nExamples:\n" in text
    assert all(line.startswith("braingpt ") or "| braingpt " in line for line in examples_of(command.help))
    for line in examples_of(command.help):
        assert f"\n  {line}\n" in f"{text}\n"
    # The examples of a command are its own.
    assert any(
        "braingpt " + " ".join(words) in line.replace("bench v", "bench compare v")
        for line in example_lines()
    )


@pytest.mark.parametrize("line", example_lines())
def test_an_example_is_understood(line):
    words = shlex.split(line.split(" | ")[-1])
    assert words.pop(0) == "braingpt"
    command, context, name = COMMANDS[()], None, "braingpt"
    while True:
        context = command.make_context(name, list(words), parent=context)
        if not isinstance(command, Group):
            break
        words = [*context._protected_args, *context.args]
        if not words:
            assert command.invoke_without_command
            break
        name, command, words = command.resolve_command(context, words)
    values = context.params
    if "recipe" in values or (name == "show" and "name" in values):
        recipe = values.get("recipe") or values.get("name")
        if recipe:
            load_recipe(recipe, values["overrides"])


def test_options_stand_in_groups():
    for words, sections in {
        ("generate",): ("Text", "Sampling", "Model", "Machine", "Output"),
        ("train",): ("Recipe and data", "Machine", "Output"),
        ("data", "prepare"): ("Your files", "Hub", "Selection", "Work", "Output"),
        ("eval",): ("Text", "Model", "Machine", "Output"),
        ("bench", "compare"): ("Training", "Measurements", "Machine", "Output"),
        (): ("Start", "Data", "Training", "Use", "Measuring"),
    }.items():
        text = shown(*words, "-h")
        places = [text.index(f"\n{section}:\n") for section in (*sections, "Options", "Examples")]
        assert places == sorted(places), words


def test_the_group_of_benchmarks_shows_its_commands():
    for words in (("bench", "--help"), ("bench", "-h")):
        assert "\n  kernels " in shown(*words) and "\n  compare " in shown(*words)
    assert "ARCHITECTURE" in shown("bench", "v1", "--help")


@pytest.mark.parametrize("columns", [30, 50, 80, 120, 300])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_the_terminal(words, columns):
    text = shown(*words, "-h", columns=columns).partition("\nExamples:\n")[0]
    lines = text.splitlines()
    # A long name of an option stands alone in its line; a name is not broken.
    too_long = [line for line in lines if len(line) > columns and " " in line.strip()]
    named = [line for line in too_long if line.strip().startswith("-") or line.startswith("Usage:")]
    assert too_long == named and (columns < 50 or not too_long)
    assert max(map(len, lines)) <= 100
    for name, command in getattr(COMMANDS[words], "commands", {}).items():
        about = about_of(command.help).partition("\n\n")[0]
        assert " ".join(f"{name} {about}".split()) in " ".join(text.split()), "cut"


def test_version():
    assert shown("-V") == shown("--version")
    assert shown("-V").startswith("braingpt 0.")


def test_help_has_no_colour():
    assert "\x1b" not in shown("-h", FORCE_COLOR="1")


def test_the_module_and_the_command_have_one_name(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "braingpt", "train", "-h"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: braingpt train ")


def test_chat_and_generate_share_their_options():
    chat, generate = (
        {one.name: (one.opts, one.help) for one in COMMANDS[words].params}
        for words in (("chat",), ("generate",))
    )
    sampling = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    for name in ("lang", "max_new_tokens", *sampling, "device"):
        assert chat[name] == generate[name]
