#!/usr/bin/env bash
# In a Typer program, click's exceptions are no longer understood.
#
# One would guess: Typer is built on click, so a command may raise click.UsageError or click.exceptions.Exit(3), a
#   helper may ask for click's current context, and click's plug-ins take typer.main.get_command(app).
# What happens: Typer 0.29 has a click of its own inside and does not install click. Where click is installed as well,
#   everything imports, and nothing is recognised: Exit(3) ends with code 1 and a traceback, UsageError with code 1
#   instead of 2, click.get_current_context finds none, the command is no click.Command. Typer's own exceptions work.
# Versions: typer 0.29.2, click 8.5.1. With typer 0.20.0 the codes were 3 and 2.
# Why it matters: tools for language models with a Typer command line report exit codes to schedulers and sweeps. Code
#   2 for "wrong options, do not try again" silently becomes 1, and `except click.ClickException` catches nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet typer==0.29.2 click==8.5.1
"$work/venv/bin/python" - <<'PY'
import contextlib
import io
import sys
from importlib.metadata import requires, version

import click
import typer

app = typer.Typer()


@app.command()
def click_exit():
    raise click.exceptions.Exit(3)


@app.command()
def click_usage():
    raise click.UsageError("no such corpus")


@app.command()
def click_context():
    raise typer.Exit(0 if click.get_current_context(silent=True) else 4)


@app.command()
def typer_exit():
    raise typer.Exit(3)


@app.command()
def typer_usage():
    raise typer.BadParameter("no such corpus")


def outcome(name):
    """The exit code, or the class of an exception that no handler took (the interpreter then exits with 1)."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            app([name])
    except SystemExit as stop:
        return stop.code
    except Exception as error:
        return f"{type(error).__name__} not handled"


STATED = {
    "click-exit": "Exit not handled",
    "click-usage": "UsageError not handled",
    "click-context": 4,
    "typer-exit": 3,
    "typer-usage": 2,
    "a click.Command": False,
    "needs click": False,
}
seen = {name: outcome(name) for name in list(STATED)[:5]}
seen["a click.Command"] = isinstance(typer.main.get_command(app), click.Command)
seen["needs click"] = any(line.startswith("click") for line in requires("typer"))
print(f"typer {version('typer')}; click {version('click')}")
for name, value in seen.items():
    print(f"  {name}: {value}")
wrong = [f"{name}: stated {STATED[name]}, seen {value}" for name, value in seen.items() if value != STATED[name]]
sys.exit("no longer as stated: " + "; ".join(wrong) if wrong else 0)
PY
