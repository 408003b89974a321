"""`--json` and `--json-file`: the result of a command as JSON, on standard output or in a file.

`--json` is a flag in every command. A few commands used to read `--json FILE`; `ReportCommand` still accepts
that form and prints a notice of one line.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.command import OUTPUT, Command
from braingpt.cli.options import check_output_file
from braingpt.utils.terminal_text import visible_json

Json = Annotated[
    bool, typer.Option("--json", help="Print the result, or an error, as JSON.", rich_help_panel=OUTPUT)
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json-file",
        metavar="FILE",
        help="Write the result as JSON to FILE. The former `--json FILE` still works if FILE ends in .json "
        "or is a device or a pipe.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]

STANDARD_OUTPUT = "-"


class ReportCommand(Command):
    """A command with `--json-file` that also accepts the former `--json FILE`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Translate the former form, then parse as every command does."""
        return super().parse_args(ctx, translate_former_json(args))


def translate_former_json(arguments: list[str]) -> list[str]:
    """The arguments of a command with `--json FILE`, `--json=FILE` and `--json -` in today's form.

    The word after `--json` is FILE if it is `-`, if it ends in .json and is not a folder, or if it names a
    device or a pipe. Any other word is an argument of the command, for example the run. A translation prints
    one line on standard error.

    Raises:
        UserError: If the word looks like a path, but is neither a folder nor ends in .json. A mistyped run
            is then not taken for a file, nor a file for a run.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    translated: list[str] = []
    notice, at = "", 0
    while at < end:
        word = arguments[at]
        at += 1
        if word.startswith("--json="):
            file = word.removeprefix("--json=")
        elif word == "--json" and at < end and _is_former_file(arguments[at]):
            file = arguments[at]
            at += 1
        else:
            translated.append(word)
            continue
        if file == STANDARD_OUTPUT:
            translated.append("--json")
            notice = notice or "--json - is now --json"
        else:
            translated += ["--json-file", file]
            notice = "--json FILE is now --json-file FILE"
    if notice:
        print(f"braingpt: {notice}", file=sys.stderr)
    return translated + arguments[end:]


def _is_former_file(word: str) -> bool:
    """Whether the word after `--json` names the file of the former form."""
    from braingpt.errors import UserError

    if word == STANDARD_OUTPUT:
        return True
    if word.startswith("-") or os.path.isdir(word):
        return False
    if word.lower().endswith(".json") or word.startswith("/dev/"):
        return True
    if os.path.exists(word) and not os.path.isfile(word):
        return True
    # A run is a folder, and no architecture or operation has a slash or a dot in its name.
    if any(mark in word for mark in ("/", os.sep, ".")):
        raise UserError(f"there is no folder {word}; write JSON to a file with --json-file {word}")
    return False


def print_json(value: Any) -> None:
    """Print `value` as indented JSON on standard output, Hangul readable where the terminal has it."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(visible_json(text, sys.stdout.encoding or "utf-8"))


def write_json(value: Any, json_output: bool, json_file: Path | None) -> None:
    """Write `value` as JSON where `--json` and `--json-file` ask for it.

    The file is either complete or unchanged.
    """
    if json_output:
        print_json(value)
    if json_file is None:
        return
    from braingpt.utils.atomic_write import write_atomically

    check_output_file(json_file, "--json-file")
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(json_file, visible_json(text) + "\n")
