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
from braingpt.cli.command import HELP_OPTIONS, Command, Group
from braingpt.cli.completion import named_shell
from braingpt.cli.console import expect_json, guarded
from braingpt.cli.json_output import ReportCommand
from braingpt.cli.streams import guard_streams
from braingpt.utils.child import set_safe_path

# Groups of commands, in the order of the help.
START, DATA, TRAINING, USE, MEASURING = "Start", "Data", "Training", "Use", "Measuring"


class _MainGroup(Group):
    """The whole command line."""

    order = (START, DATA, TRAINING, USE, MEASURING)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Note whether errors are to be JSON, and answer `--show-completion SHELL`."""
        expect_json("--json" in args[: args.index("--")] if "--" in args else "--json" in args)
        named_shell(ctx, args)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="braingpt",
    cls=_MainGroup,
    help="""Small, brain-inspired, sparse language models: data, training, evaluation, generation, benchmarks.

    `braingpt COMMAND --help` describes a command. `braingpt --install-completion` lets the Tab key complete
    commands, options and values.

    Examples:
        braingpt quickstart
        braingpt data prepare sample
        braingpt train --recipe nano-v2
        braingpt generate --prompt "Once upon a time"
    """,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
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
        False, "--version", "-V", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    if os.environ.get("BRAINGPT_KERNELS"):
        from braingpt.errors import UserError
        from braingpt.kernels.registry import wrong_choice

        if wrong := wrong_choice():
            raise UserError(wrong)


app.command(cls=Command, rich_help_panel=START)(quickstart.quickstart)
app.command(cls=Command, rich_help_panel=START)(doctor.doctor)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.add_typer(tokenizer.app, name="tokenizer", rich_help_panel=DATA)
app.command(cls=Command, rich_help_panel=TRAINING)(train.train)
app.add_typer(recipes.app, name="recipes", rich_help_panel=TRAINING)
app.add_typer(runs.app, name="runs", rich_help_panel=TRAINING)
app.command(cls=Command, rich_help_panel=USE)(generate.generate)
app.command(cls=Command, rich_help_panel=USE)(chat.chat)
app.command(cls=Command, rich_help_panel=USE)(serve.serve)
app.add_typer(memory.app, name="memory", rich_help_panel=USE)
app.command(cls=Command, rich_help_panel=USE)(export.export)
app.command("eval", cls=ReportCommand, rich_help_panel=MEASURING)(evaluate.evaluate)
app.add_typer(bench.app, name="bench", rich_help_panel=MEASURING)
app.command(cls=ReportCommand, rich_help_panel=MEASURING)(calibrate.calibrate)
app.command("inspect-sparsity", cls=ReportCommand, rich_help_panel=MEASURING)(
    inspect_sparsity.inspect_sparsity
)


def _checked_app() -> object:
    """The command line, with words that are neither UTF-8 nor the name of something to read refused."""
    from braingpt.errors import UserError
    from braingpt.utils.paths import is_utf8, printable

    for word in sys.argv[1:]:
        if not is_utf8(word) and not os.path.exists(word):
            raise UserError(f"the argument {printable(word)} is not UTF-8; type it again, or rename the file")
    return app(prog_name="braingpt", standalone_mode=False)


def run() -> None:
    """Run the command line and exit with its code."""
    guard_streams()
    set_safe_path()
    code = guarded(_checked_app)
    # What was printed may meet a full disk only now.
    sys.exit(guarded(sys.stdout.flush) or code)


if __name__ == "__main__":
    run()
