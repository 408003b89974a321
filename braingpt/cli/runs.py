"""`braingpt runs`: a list of the runs, the course of one, and how runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.command import Command, Group
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.utils.formatting import number

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="""List the runs under runs/, show one, or compare several.

    Examples:
        braingpt runs list
        braingpt runs compare nano-v1 nano-v2
    """,
)

Folder = Annotated[Path, typer.Option("--folder", help="The folder with the runs.")]
RUNS = Path("runs")


@app.command("list", cls=Command)
def list_(folder: Folder = RUNS, json_output: Json = False) -> None:
    """List the runs, the newest last.

    Examples:
        braingpt runs list
    """
    from braingpt.errors import Failure, UserError
    from braingpt.train.run.report import find_runs, summary

    found = []
    for path in find_runs(folder):
        try:
            found.append(summary(path, _note))
        except (UserError, Failure) as error:
            # A run that cannot be read does not hide the others.
            print_line(console(stderr=True), f"skipped: {error}")
    if json_output:
        print_json(found)
    elif not found:
        console().print(
            f"no runs under {folder}/; make one with: braingpt train --recipe NAME", soft_wrap=True
        )
    else:
        console().print(_table(found))


@app.command(cls=Command)
def show(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run folder, or its name under runs/.", autocompletion=completion.run_names
        ),
    ],
    folder: Folder = RUNS,
    json_output: Json = False,
) -> None:
    """Show one run: steps, loss, speed, and what went wrong.

    `braingpt train --help` explains the shares in the line of the validation.

    Examples:
        braingpt runs show nano-v2
    """
    from braingpt.train.run.lineage import Start, in_words
    from braingpt.train.run.progress import validation_line
    from braingpt.train.run.report import open_summary
    from braingpt.utils.formatting import duration, short_count

    figures = open_summary(run, folder, _note)
    if json_output:
        print_json(figures)
        return
    total, active = short_count(figures["parameters_total"]), short_count(figures["parameters_active"])
    tokens = f"{short_count(figures['tokens'])} tokens in {duration(figures['seconds'])}"
    speed = f"{number(figures['tokens_per_second'])} tokens/s"
    lines = [
        f"{figures['run']}: {figures['name']}, {total} parameters, {active} active",
        f"step {figures['step']:,} of {figures['steps']:,}, {tokens} ({speed}), "
        f"last loss {number(figures['loss'])}",
    ]
    if figures["stage"]:
        lines.append(f"growing: stage {figures['stage']}, {figures['layers']} layers")
    if figures["validation"]:
        lines.append(validation_line(figures["validation"]))
    if figures["best"]:
        best = figures["best"]
        lines.append(f"best: validation loss {best['loss']:.4f} at step {best['step']}, {best['checkpoint']}")
    lines += in_words([Start.model_validate(start) for start in figures["lineage"]])
    lines.append(
        f"updates skipped: {figures['skipped']}, loss spikes: {figures['spikes']}, "
        f"rewinds: {figures['rewinds']}"
    )
    lines.append(
        f"checkpoints: {figures['checkpoints']}, newest {figures['checkpoint']}"
        if figures["checkpoint"]
        else "no checkpoint yet"
    )
    console().print("\n".join(lines), soft_wrap=True, markup=False)


@app.command(cls=Command)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more run folders, or their names under runs/.",
            autocompletion=completion.run_names,
        ),
    ],
    folder: Folder = RUNS,
    json_output: Json = False,
) -> None:
    """Compare runs: their results, and the settings that differ.

    Examples:
        braingpt runs compare nano-v1 nano-v2
    """
    from braingpt.errors import UserError
    from braingpt.train.run.report import differences, losses_at, open_summary

    if len(runs) < 2:
        raise UserError("compare needs two runs or more; `braingpt runs list` lists them")
    found = [open_summary(run, folder, _note) for run in runs]
    paths = [Path(figures["run"]) for figures in found]
    shares = (0.25, 0.5, 0.75, 1.0)
    losses = {f"{share:.0%}": [losses_at(path, share) for path in paths] for share in shares}
    differing = differences(paths)
    if line := _incomparable(found):
        _note(line)
    if json_output:
        print_json({"runs": found, "training_loss": losses, "settings": differing})
        return
    from rich.table import Table

    screen = console()
    screen.print(_table(found))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for path in paths:
        table.add_column(path.name, justify="right")
    for share, values in losses.items():
        table.add_row(f"training loss at {share} of its steps", *map(number, values))
    for key, values in differing.items():
        table.add_row(key, *map(str, values))
    screen.print(table)


def _note(line: str) -> None:
    print_line(console(stderr=True), f"note: {line}")


def _incomparable(found: list[dict[str, Any]]) -> str | None:
    """A line where the runs were validated on different text or windows; None where they were not."""
    measured = {(figures["validation"] or {}).get("validated_on") for figures in found} - {None}
    if len(measured) < 2:
        return None
    return (
        "validation losses of these runs are of different text or windows and cannot be compared; "
        "`braingpt eval RUN --against OTHER` measures both on the same text"
    )


def _table(summaries: list[dict[str, Any]]) -> "Table":
    """One row for each run; trouble: updates skipped, loss spikes and rewinds."""
    from rich.table import Table

    from braingpt.utils.formatting import short_count

    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for column in ("step", "tokens", "loss", "validation", "bits/byte", "tokens/s", "trouble"):
        table.add_column(column, justify="right", no_wrap=True)
    for figures in summaries:
        scores = figures["validation"] or {"loss": None, "bits_per_byte": None}
        trouble = figures["skipped"] + figures["spikes"] + figures["rewinds"]
        table.add_row(
            Path(figures["run"]).name,
            f"{figures['step']}/{figures['steps']}",
            short_count(figures["tokens"]),
            number(figures["loss"]),
            number(scores["loss"]),
            number(scores["bits_per_byte"]),
            number(figures["tokens_per_second"]),
            str(trouble or "-"),
        )
    return table
