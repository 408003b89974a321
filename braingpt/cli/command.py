"""The classes of all commands and groups: the form of their help, and the nearest name for a typo.

A command's docstring may end with a paragraph `Examples:`, whose lines are printed as they are. Options stand
in the group that their `rich_help_panel` names, commands of a group as well. The help is plain text: it needs
no import of rich, which takes longer than all the rest, and looks the same in a pipe.
"""

import difflib
import shutil
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# Groups of options, in which help texts show them.
DATA, TEXT, SAMPLING, MODEL = "Recipe and data", "Text", "Sampling", "Model"
TRAINING, MEASUREMENTS, MACHINE, OUTPUT = "Training", "Measurements", "Machine", "Output"
FILES, HUB, SELECTION, WORK = "Your files", "Hub", "Selection", "Work"
SERVER = "Server"
ORDER = (
    "Arguments",
    *(DATA, FILES, HUB, SELECTION, TEXT, TRAINING, MEASUREMENTS),
    *(SAMPLING, MODEL, WORK, SERVER, MACHINE, OUTPUT),
    "Options",
)

# Columns of a help text, at most: longer lines are hard to read.
WIDEST = 100
NARROWEST = 24
EXAMPLES = "Examples:\n"
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# How alike two names are, at least, for one to be proposed for the other.
ALIKE = 0.7


class Command(TyperCommand):
    """A command of braingpt."""

    def get_help(self, ctx: typer.Context) -> str:
        """The help in the width of the terminal."""
        return _help(self, ctx)

    def format_help_text(self, ctx: typer.Context, formatter: Any) -> None:
        """What the command does, without the examples."""
        _write_about(self.help, formatter)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        """Arguments and options in their groups."""
        _write_sections(_parameters(self, ctx), formatter)

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:
        """The examples."""
        _write_examples(self.help, formatter)


class Group(TyperGroup):
    """A group of commands, which is shown with its help where no command is named."""

    # Sections of its commands in their order; those that are not named follow.
    order: tuple[str, ...] = ()

    def get_help(self, ctx: typer.Context) -> str:
        """The help in the width of the terminal."""
        return _help(self, ctx)

    def format_help_text(self, ctx: typer.Context, formatter: Any) -> None:
        """What the commands of the group do, without the examples."""
        _write_about(self.help, formatter)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        """The commands in their groups, then the options."""
        sections: dict[str, list[tuple[str, str]]] = {section: [] for section in self.order}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None) or "Commands"
                sections.setdefault(section, []).append((name, _first_paragraph(command.help)))
        _write_sections(sections | _parameters(self, ctx), formatter)

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:
        """The examples."""
        _write_examples(self.help, formatter)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:
        """Nothing: `format_options` writes the commands."""


def examples_of(text: str | None) -> list[str]:
    """The command lines below `Examples:` of a help text."""
    found = (text or "").partition(EXAMPLES)[2]
    return [line.strip() for line in found.splitlines() if line.strip()]


def about_of(text: str | None) -> str:
    """A help text without its examples."""
    return (text or "").partition(EXAMPLES)[0].strip()


def usage_message(error: Any) -> str:
    """What is wrong with the words of a command line, with the nearest option where one is unknown.

    Args:
        error: Typer's error.
    """
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if name is None or not hasattr(error, "possibilities") or context is None:
        return error.format_message()
    parameters = context.command.get_params(context)
    known = [option for one in parameters for option in (*one.opts, *one.secondary_opts)]
    if near := _nearest_option(name, known):
        return f"there is no option {name}; did you mean {near}?"
    if "--set" in known:
        from braingpt.recipes.keys import meant_key

        if key := meant_key(name.lstrip("-")):
            return f"there is no option {name}; recipe values are set with --set {key}=VALUE"
    return f"there is no option {name}"


def _nearest_option(name: str, known: Iterable[str]) -> str | None:
    """The option that is spelled like `name` or begins like it."""
    options = [option for option in known if option.startswith("--")]
    if len(name.strip("-")) > 1 and (begun := [option for option in options if option.startswith(name)]):
        return min(begun, key=len)
    return next(iter(difflib.get_close_matches(name, options, n=1, cutoff=ALIKE)), None)


def _help(command: Command | Group, ctx: typer.Context) -> str:
    formatter = ctx.make_formatter()
    formatter.width = max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST) - 2)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip("\n")


def _parameters(command: Command | Group, ctx: typer.Context) -> dict[str, list[tuple[str, str]]]:
    """By section, the name and meaning of each parameter."""
    sections: dict[str, list[tuple[str, str]]] = {section: [] for section in ORDER}
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is None:
            continue
        kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
        sections[getattr(parameter, "rich_help_panel", None) or kind].append(record)
    return {section: rows for section, rows in sections.items() if rows}


def _write_sections(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    sections = {name: rows for name, rows in sections.items() if rows}
    most = max(6, min(30, formatter.width // 3))
    names = [name for rows in sections.values() for name, _ in rows]
    # One column for the meanings of all sections.
    width = max((len(name) for name in names if len(name) <= most), default=0)
    for section, rows in sections.items():
        with formatter.section(section):
            formatter.write_dl([(name.ljust(width), about) for name, about in rows], col_max=most)


def _write_about(text: str | None, formatter: Any) -> None:
    if about := about_of(text):
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(about)


def _write_examples(text: str | None, formatter: Any) -> None:
    """The lines as they are, since a broken line could not be pasted."""
    if lines := examples_of(text):
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _first_paragraph(text: str | None) -> str:
    return " ".join(about_of(text).partition("\n\n")[0].split())
