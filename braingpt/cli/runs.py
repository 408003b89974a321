"""`braingpt runs`: what was trained, how it went, and how runs differ."""

from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import Json, console, print_json
from braingpt.cli.options import number

app = typer.Typer(rich_markup_mode=None, help="List the runs under runs/, show one, or compare several.")

Folder = Annotated[Path, typer.Option("--folder", help="Where the runs lie.")]
RUNS = Path("runs")


@app.command("list")
def list_(folder: Folder = RUNS, json_output: Json = False) -> None:
    """List the runs, the youngest last."""
    from braingpt.errors import UserError
    from braingpt.train.run.report import find_runs, summary

    found = []
    for path in find_runs(folder):
        try:
            found.append(summary(path))
        except UserError as error:
            # one that cannot be read hides no other
            console(json_output=True).print(f"left out: {error}", soft_wrap=True, markup=False)
    if json_output:
        print_json(found)
    elif not found:
        console().print(f"no runs under {folder}/; braingpt train --recipe NAME makes one", soft_wrap=True)
    else:
        console().print(_table(found))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run folder, or its name under runs/.")],
    folder: Folder = RUNS,
    json_output: Json = False,
) -> None:
    """Show one run: how far, how well, how fast, and what went wrong."""
    from braingpt.train.run.progress import validation_line
    from braingpt.train.run.report import open_summary
    from braingpt.utils.formatting import duration, short_count

    figures = open_summary(run, folder)
    if json_output:
        print_json(figures)
        return
    lines = [
        f"{figures['run']}: {figures['name']}, {short_count(figures['parameters_total'])} parameters, {short_count(figures['parameters_active'])} active",
        f"step {figures['step']:,} of {figures['steps']:,}, {short_count(figures['tokens'])} tokens in {duration(figures['seconds'])}"
        f" ({number(figures['tokens_per_second'])} tokens/s), last loss {number(figures['loss'])}",
    ]
    if figures["stage"]:
        lines.append(f"growing: stage {figures['stage']}, {figures['layers']} layers")
    if figures["validation"]:
        lines.append(validation_line(figures["validation"]))
    if figures["best"]:
        lines.append(
            f"best: validation loss {figures['best']['loss']:.4f} at step {figures['best']['step']}, {figures['best']['checkpoint']}"
        )
    lines.append(
        f"gradients left out {figures['skipped']}, loss spikes {figures['spikes']}, gone back {figures['rewinds']} times"
    )
    lines.append(
        f"checkpoints: {figures['checkpoints']}, the newest {figures['checkpoint']}"
        if figures["checkpoint"]
        else "no checkpoint yet"
    )
    console().print("\n".join(lines), soft_wrap=True, markup=False)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more run folders, or their names under runs/.")],
    folder: Folder = RUNS,
    json_output: Json = False,
) -> None:
    """Compare runs: their figures, and the settings in which they differ."""
    from braingpt.errors import UserError
    from braingpt.train.run.report import differences, losses_at, open_summary

    if len(runs) < 2:
        raise UserError("compare takes two runs or more; `braingpt runs list` names them")
    found = [open_summary(run, folder) for run in runs]
    paths = [Path(figures["run"]) for figures in found]
    shares = (0.25, 0.5, 0.75, 1.0)
    losses = {f"{share:.0%}": [losses_at(path, share) for path in paths] for share in shares}
    differing = differences(paths)
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


# -> rich.table.Table
def _table(found: list[dict[str, Any]]):
    from rich.table import Table

    from braingpt.utils.formatting import short_count

    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for column in ("step", "tokens", "loss", "validation", "bits/byte", "tokens/s", "trouble"):
        table.add_column(column, justify="right", no_wrap=True)
    for figures in found:
        scores = figures["validation"] or {"loss": None, "bits_per_byte": None}
        trouble = figures["skipped"] + figures["spikes"] + figures["rewinds"]
        table.add_row(
            Path(figures["run"]).name, f"{figures['step']}/{figures['steps']}", short_count(figures["tokens"]), number(figures["loss"]),
            number(scores["loss"]), number(scores["bits_per_byte"]), number(figures["tokens_per_second"]), str(trouble or "-"),
        )  # fmt: skip
    return table
