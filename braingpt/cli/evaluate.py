"""`braingpt eval`: loss, perplexity and bits per byte by language."""

from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.output import Device, Dtype, Effort, ExitThreshold, JsonFile, Run, check_target, deliver, number, open_run, read_text


def evaluate(
    run: Run = None,
    data: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="A prepared data folder, may be repeated. [default: the run's own]")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A text file to score instead; - is standard input.", show_default=False)] = None,
    lang: Annotated[str | None, typer.Option(help="Language of --text. [default: detected]", show_default=False)] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a window. [default: that of training]", show_default=False, min=1)] = None,
    windows: Annotated[int, typer.Option(help="Validation windows a language, at most.", min=1)] = 256,
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    json: JsonFile = None,
) -> None:
    """Measure how well a model predicts text, by language."""
    from braingpt.errors import UserError
    from braingpt.evaluation import perplexity

    if data and text:
        raise UserError("--data and --text exclude each other: name one of them")
    if lang and not text:
        raise UserError("--lang belongs to --text; prepared data know their languages")
    check_target(json)
    source = read_text(text) if text else None
    out = console(json == "-")
    model, tokenizer, recipe, state, folder = open_run(run, device, console(json_output=True), dtype, effort, exit_threshold)
    context = context or recipe.train.context
    place = model.device
    with model.recording() as layers:
        if source is not None:
            name = str(text)
            scores = perplexity.evaluate_text(model, tokenizer, source, lang, context=context, device=place)
        else:
            from braingpt.data.shards import ShardSet

            folders = data or [Path(folder) for folder in recipe.data.folders]
            name = ", ".join(map(str, folders))
            scores = perplexity.evaluate(
                model, ShardSet.open(folders, tokenizer), tokenizer, context=context, windows=windows, device=place,
                reset_at_documents=recipe.data.reset_at_documents,
            )  # fmt: skip
    exits = model.early is not None and model.early.threshold is not None  # the layers see all tokens, those that left unchanged
    used = model.early.share() if exits else sum(layer.arrived for layer in layers) / sum(layer.tokens for layer in layers)
    head = {
        "run": str(folder),
        "recipe": recipe.name,
        "step": state["step"],
        "data": name,
        "context": context,
        "dtype": dtype,
        "layers_used": used,
    }
    deliver({**head, **scores.as_dict()}, json)
    out.print(f"{recipe.name}, step {state['step']}: {name}, windows of {context} tokens", soft_wrap=True)
    if model.exits or exits:
        out.print(f"a token goes through {used:.1%} of the layers", soft_wrap=True)
    out.print(_table(scores))


def _table(scores: Any) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("language")
    for head in ("tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(head, justify="right", no_wrap=True)
    rows = list(scores.by_language.items())
    for name, score in [*rows, *([("all", scores)] if len(rows) > 1 else [])]:
        figures = (number(score.loss), number(score.perplexity, 2), number(score.bits_per_byte))
        table.add_row(name, f"{score.tokens:,}", *figures, style="bold" if name == "all" else None)
    return table
