"""The command tree: every command with its parameters, read from Typer's own objects rather than from
rendered help.
"""

from collections.abc import Iterator
from typing import Any, get_args

import typer

from braingpt.cli.main import app

# click's names
PLAIN = {
    "integer": "int",
    "integer range": "int",
    "float range": "float",
    "text": "str",
    "boolean": "bool",
    "path": "Path",
}


def walk() -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of all commands and groups."""
    waiting = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop(0)
        yield words, command
        waiting += [((*words, name), part) for name, part in getattr(command, "commands", {}).items()]


def tree() -> dict[str, list[str]]:
    """By command, a line for each parameter."""
    return {
        " ".join(("braingpt", *words)): [_line(parameter) for parameter in command.params]
        for words, command in walk()
    }


def _line(parameter: Any) -> str:
    """Such as `option --windows int default 256 min 1`."""
    kind = parameter.param_type_name
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    parts = [kind, names, _type(parameter)]
    if parameter.default not in (None, [], ()):
        parts.append(f"default {parameter.default}")
    for bound in ("min", "max"):
        value = getattr(parameter, bound, None)
        value = getattr(getattr(parameter, "type", None), bound, None) if value is None else value
        if value is not None:
            parts.append(f"{bound} {value}")
    flags = {"required": parameter.required, "multiple": parameter.multiple or parameter.nargs == -1}
    flags |= {"flag": getattr(parameter, "is_flag", False)}
    return " ".join([*parts, *(name for name, there in flags.items() if there)])


def _type(parameter: Any) -> str:
    # Typer without click
    if (descriptor := getattr(parameter, "type_descriptor", None)) is not None:
        annotation = descriptor.annotation
        annotation = (get_args(annotation) or (annotation,))[0]
        return getattr(annotation, "__name__", str(annotation))
    return PLAIN.get(parameter.type.name, parameter.type.name)
