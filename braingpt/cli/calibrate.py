"""`braingpt calibrate`: the exit threshold that a loss budget allows."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.console import console
from braingpt.cli.options import (
    Device,
    JsonFile,
    Run,
    check_target,
    deliver,
    number,
    open_run,
    percent,
)


def calibrate(
    run: Run = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="A prepared data folder, may be repeated. [default: the run's own]"
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="By how much perplexity may rise: 0.01 is 1 %.", min=0)
    ] = 0.01,
    windows: Annotated[int, typer.Option(help="Validation windows a language, at most.", min=1)] = 32,
    device: Device = "auto",
    json: JsonFile = None,
) -> None:
    """Find the exit threshold that spares most layers within a budget of perplexity."""
    from braingpt.data.shards.reader import ShardSet
    from braingpt.errors import UserError
    from braingpt.evaluation import exit_threshold, perplexity

    check_target(json)
    out = console(json == "-")
    model, tokenizer, recipe, state, folder = open_run(run, device, console(json_output=True))
    if model.early is None:
        raise UserError(f"{recipe.name} has no early exits; they belong to v1")
    shards = ShardSet.open(data or [Path(name) for name in recipe.data.folders], tokenizer)

    def score() -> float:
        return perplexity.evaluate(
            model, shards, tokenizer, context=recipe.train.context, windows=windows, device=model.device
        ).loss

    found = []
    out.print(
        f"{recipe.name}, step {state['step']}: threshold, layers a token goes through, loss, rise of perplexity",
        soft_wrap=True,
    )
    for setting in exit_threshold.sweep_thresholds(model, score):
        found.append(setting)
        name = "none" if setting.threshold is None else f"{setting.threshold:g}"
        out.print(
            f"{name:>6} {percent(setting.layers_used):>8} {number(setting.loss):>8} {percent(setting.perplexity_cost):>8}"
        )
    chosen = exit_threshold.cheapest_within(found, budget)
    if chosen.threshold is None:
        out.print(
            f"no threshold keeps perplexity within {percent(budget)}: this model does without exits",
            soft_wrap=True,
        )
    else:
        cost = (
            f"{percent(chosen.layers_used)} of the layers for {percent(chosen.perplexity_cost)} of perplexity"
        )
        out.print(f"--exit-threshold {chosen.threshold:g}: {cost}", soft_wrap=True)
    rows = [setting.as_dict() for setting in found]
    deliver(
        {
            "run": str(folder),
            "recipe": recipe.name,
            "budget": budget,
            "chosen": chosen.as_dict(),
            "settings": rows,
        },
        json,
    )
