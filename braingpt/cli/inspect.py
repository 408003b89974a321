"""`braingpt inspect-sparsity`: what a model leaves out, layer by layer, counted on real text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.output import Device, JsonFile, Run, check_target, deliver, open_run, percent, read_text


def inspect_sparsity(
    run: Run = None,
    text: Annotated[Path | None, typer.Option(help="A text to read; - is standard input. [default: validation data]")] = None,
    context: Annotated[int, typer.Option(help="Tokens a window.", min=2)] = 256,
    device: Device = "auto",
    json: JsonFile = None,
) -> None:
    """Show what is really sparse in a model. Tokens, keys, columns, neurons, weights, and the share of the work that is done."""
    from braingpt.inspection.sparsity import inspect, inspect_ids

    check_target(json)
    source = read_text(text) if text else None
    out = console(json == "-")
    model, tokenizer, recipe, state, folder = open_run(run, device, console(json_output=True))
    if source is not None:
        name, report = str(text), inspect(model, tokenizer, source, context=context)
    else:
        name, ids = _default_text(recipe, tokenizer, context)
        report = inspect_ids(model, ids, context=context)
    total, active = model.parameters_total(), model.parameters_active()
    figures = {
        "run": str(folder),
        "recipe": recipe.name,
        "step": state["step"],
        "text": name,
        "parameters_total": total,
        "parameters_active": active,
        **report.as_dict(),
    }
    deliver(figures, json)
    out.print(f"{recipe.name}, step {state['step']}: {report.tokens:,} tokens of {name}, windows of {report.context}", soft_wrap=True)
    out.print(_table(report))
    out.print(f"parameters a token multiplies with: {active:,} of {total:,} ({active / total:.0%}), head included")
    out.print("computed: work done over the same shape done densely; only what is not computed saves time")


def _default_text(recipe: Any, tokenizer: Any, context: int) -> tuple[str, list[int]]:
    """Eight validation windows a language of the run's data, or a built-in paragraph where the data are not prepared."""
    from braingpt.data.shards import ShardSet
    from braingpt.errors import UserError
    from braingpt.inspection.sparsity import SAMPLE

    try:
        shards = ShardSet.open(recipe.data.folders, tokenizer)
    except UserError:
        return "a built-in paragraph", tokenizer.encode(SAMPLE, language="auto")
    ids = []
    for language in shards.languages("validation"):
        length = min(shards.tokens("validation", language), 8 * context)
        ids += shards.window("validation", language, 0, length).tolist()
    return f"{', '.join(recipe.data.folders)} (validation)", ids


def _table(report: Any) -> Any:
    """One row a layer. Short heads: it has to fit 80 columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    halting = report.total.depth < 1  # no model has both: V1 has dendrites, V2 may have exits
    heads = (
        "layer",
        "mixer",
        "tokens",
        "keys",
        "depth" if halting else "dendr.",
        "columns",
        "dead",
        "even",
        "neurons",
        "zero w.",
        "computed",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "mixer" else "right", no_wrap=True)
    for row in [*report.layers, report.total]:
        last = row is report.total
        table.add_row(
            "all" if last else str(row.layer),
            "" if last else row.mixer,
            _share(row.attended),
            _share(row.keys_kept),
            _share(row.depth if halting else row.dendrites_open),
            _share(row.columns_active),
            "-" if row.columns_dead is None else str(row.columns_dead),
            "-" if row.load_entropy is None else f"{row.load_entropy:.2f}",
            _share(row.neurons_fired),
            _share(row.weights_zero),
            _share(row.computed),
            style="bold" if last else None,
        )
    return table


def _share(value: float | None) -> str:
    return percent(value).replace(" ", "")
