"""The entry point of `braingpt`: the commands and their files.

No module of this package imports torch or rich before a command runs, so that `--help` is instant.
"""

import os
import sys

import typer

from braingpt.cli import (
    bench,
    calibrate,
    chat,
    data,
    doctor,
    evaluate,
    export,
    generate,
    inspect_sparsity,
    memory,
    quickstart,
    recipes,
    runs,
    serve,
    tokenizer,
    train,
)
from braingpt.cli.console import guarded
from braingpt.cli.json_output import ReportCommand
from braingpt.cli.streams import guard_streams
from braingpt.utils.child import set_safe_path

app = typer.Typer(
    name="braingpt",
    help="Small, brain-inspired, sparse language models: data, training, evaluation, generation, benchmarks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from braingpt import __version__

        print(f"braingpt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    if os.environ.get("BRAINGPT_KERNELS"):
        from braingpt.errors import UserError
        from braingpt.kernels.registry import wrong_choice

        if wrong := wrong_choice():
            raise UserError(wrong)


app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add_typer(memory.app, name="memory")
app.add_typer(bench.app, name="bench")
app.command()(train.train)
app.command()(quickstart.quickstart)
app.command("eval", cls=ReportCommand)(evaluate.evaluate)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(export.export)
app.command(cls=ReportCommand)(calibrate.calibrate)
app.command("inspect-sparsity", cls=ReportCommand)(inspect_sparsity.inspect_sparsity)
app.command()(doctor.doctor)


def _checked_app() -> object:
    """The command line, with words that are neither UTF-8 nor the name of something to read refused."""
    from braingpt.errors import UserError
    from braingpt.utils.paths import is_utf8, printable

    for word in sys.argv[1:]:
        if not is_utf8(word) and not os.path.exists(word):
            raise UserError(f"the argument {printable(word)} is not UTF-8; type it again, or rename the file")
    return app(standalone_mode=False)


def run() -> None:
    """Run the command line and exit with its code."""
    guard_streams()
    set_safe_path()
    code = guarded(_checked_app)
    # What was printed may meet a full disk only now.
    sys.exit(guarded(sys.stdout.flush) or code)


if __name__ == "__main__":
    run()
