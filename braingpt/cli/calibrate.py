"""`braingpt calibrate`: the exit threshold that a loss budget allows."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli import completion
from braingpt.cli.command import TEXT
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, JsonFile, write_json
from braingpt.cli.options import Device, Run, check_output_files, open_run
from braingpt.utils.formatting import number, percent


def calibrate(
    run: Run = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A prepared data folder, may be repeated. [default: the run's own]",
            rich_help_panel=TEXT,
            autocompletion=completion.prepared_folders,
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="How much perplexity may rise: 0.01 is 1 %.", min=0, max=100)
    ] = 0.01,
    windows: Annotated[
        int, typer.Option(help="Validation windows for each language, at most.", min=1, rich_help_panel=TEXT)
    ] = 32,
    device: Device = "auto",
    json_output: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Find the exit threshold for a budget of perplexity.

    The threshold is the one that saves most layers.

    Examples:
        braingpt calibrate runs/nano-v1
        braingpt calibrate runs/nano-v1 --budget 0.02
    """
    from braingpt.data.shards.reader import ShardSet
    from braingpt.errors import UserError
    from braingpt.evaluation import exit_threshold, perplexity

    check_output_files(json_file=json_file)
    out = console(stderr=json_output)
    model, tokenizer, recipe, state, folder = open_run(run, device, console(stderr=True))
    if model.early is None:
        raise UserError(f"{recipe.name} has no early exits; use a run of v1")
    shards = ShardSet.open(data or [Path(name) for name in recipe.data.folders], tokenizer)

    if line := shards.unmeasured(recipe.train.context):
        print_line(out, f"note: {line}")

    def score() -> float:
        scores = perplexity.evaluate(
            model, shards, tokenizer, context=recipe.train.context, windows=windows, device=model.device
        )
        if scores.loss is None:
            raise UserError("the data have no validation tokens; name other data with --data")
        return scores.loss

    measured = []
    out.print(
        f"{recipe.name}, step {state['step']}: threshold, layers per token, loss, rise of perplexity",
        soft_wrap=True,
    )
    for setting in exit_threshold.sweep_thresholds(model, score):
        measured.append(setting)
        name = "none" if setting.threshold is None else f"{setting.threshold:g}"
        layers, cost = percent(setting.layers_used), percent(setting.perplexity_cost)
        out.print(f"{name:>6} {layers:>8} {number(setting.loss):>8} {cost:>8}")
    chosen = exit_threshold.cheapest_within(measured, budget)
    if chosen.threshold is None:
        print_line(
            out, f"no threshold keeps perplexity within {percent(budget)}; use this model without exits"
        )
    else:
        layers, cost = percent(chosen.layers_used), f"{100 * chosen.perplexity_cost:+.1f} %"
        print_line(out, f"--exit-threshold {chosen.threshold:g}: {layers} of the layers, perplexity {cost}")
    result = {
        "run": str(folder),
        "recipe": recipe.name,
        "budget": budget,
        "chosen": chosen.as_dict(),
        "settings": [setting.as_dict() for setting in measured],
    }
    write_json(result, json_output, json_file)
