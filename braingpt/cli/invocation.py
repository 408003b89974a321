"""Commands to paste: how this process was started, in words that the same shell understands.

`braingpt` alone is not found where the environment is not activated, for example after `make demo` or under
`uv run`. Paths may hold spaces and brackets.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from braingpt.utils.paths import shell_word

NAME = "braingpt"


def command_line(*words: str | Path) -> str:
    """A command of braingpt, quoted for a shell.

    Args:
        words: Subcommand, options and arguments.

    Returns:
        One line that works when it is pasted into the shell that started this process.
    """
    # A path that begins with a dash is no option; options are given as text.
    given = [shell_word(word) if isinstance(word, Path) else shlex.quote(word) for word in words]
    return " ".join([*map(shlex.quote, _program()), *given])


def activation() -> str | None:
    """The command that makes `braingpt` a command of the shell; None where it is one, or nothing does."""
    script = Path(sys.prefix) / "bin" / "activate"
    if _program() == [NAME] or not script.is_file():
        return None
    return shlex.join(["source", _short(script)])


def folder_change() -> str | None:
    """The `cd` that the shell needs first, where the process runs elsewhere, as under `make -C`."""
    shell = os.environ.get("PWD")
    if not shell or not os.path.isdir(shell) or os.path.samefile(shell, os.curdir):
        return None
    return shlex.join(["cd", os.getcwd()])


def _program() -> list[str]:
    """The words that start braingpt from the user's shell."""
    started = Path(sys.argv[0])
    if started.stem == NAME:
        return [NAME] if _is_found(NAME, started) else [_short(started)]
    if started.name == "__main__.py" and started.parent.name == NAME:
        python = Path(sys.executable)
        return [python.name if _is_found(python.name, python) else _short(python), "-m", NAME]
    # A program of the user, or a test.
    return [NAME]


def _is_found(name: str, program: Path) -> bool:
    """Whether the shell finds `program` by its name."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        # `uv run` puts the environment in front of the path, for its child alone.
        own = os.path.abspath(program.parent)
        folders = [folder for folder in folders if os.path.abspath(folder) != own]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return found is not None and os.path.abspath(found) == os.path.abspath(program)


def _short(path: Path) -> str:
    """The path as seen from the working folder, with a slash, so that a shell does not search for it."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    if relative.startswith(os.pardir):
        return absolute
    return relative if os.sep in relative else os.path.join(os.curdir, relative)
