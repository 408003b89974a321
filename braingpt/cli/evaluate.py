"""`braingpt eval`: loss, perplexity and bits per byte by language, tasks, and whether one checkpoint differs
from another.
"""

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.options import (
    Device,
    Dtype,
    Effort,
    ExitThreshold,
    JsonFile,
    Run,
    check_target,
    deliver,
    fitting,
    number,
    open_run,
    read_text,
)


def evaluate(
    run: Run = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="A prepared data folder, may be repeated. [default: the run's own]"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to score instead; - is standard input.", show_default=False),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="perplexity, recall, binding, classify, classify-new, or names of lm-eval's tasks.",
        ),
    ] = "perplexity",
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Another checkpoint, measured on the same text and tasks and compared.",
            show_default=False,
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            help="Language of --text and of the tasks' texts. [default: detected]", show_default=False
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(help="Tokens a window. [default: that of training]", show_default=False, min=1),
    ] = None,
    windows: Annotated[int, typer.Option(help="Validation windows a language, at most.", min=1)] = 256,
    limit: Annotated[
        int | None, typer.Option(help="Items of a task, at most. [default: all]", show_default=False, min=1)
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Examples before each item of lm-eval's tasks. [default: the task's]",
            show_default=False,
            min=0,
        ),
    ] = None,
    task_files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A folder of lm-eval tasks (YAML) of your own.", show_default=False
        ),
    ] = None,
    cache: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where answers to lm-eval's tasks are kept, so that the same command goes on.",
        ),
    ] = Path(".cache/braingpt-eval"),
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    json: JsonFile = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the result as one HTML page to FILE.", show_default=False),
    ] = None,
) -> None:
    """Measure how well a model predicts text, by language, and how it does at tasks."""
    # lm-eval draws a bar for each of its passes; torch imports tqdm, which reads this
    os.environ.setdefault("TQDM_DISABLE", "1")
    from braingpt.checkpoint.listing import resolve
    from braingpt.errors import UserError
    from braingpt.evaluation.runner import EvalRequest, check_tasks
    from braingpt.evaluation.uncertainty import compare_all

    names = tuple(dict.fromkeys(name for name in tasks.replace(" ", "").split(",") if name))
    if not names:
        raise UserError("--tasks names no task; perplexity is one, recall another")
    if data and text:
        raise UserError("--data and --text exclude each other: name one of them")
    if (data or text) and "perplexity" not in names:
        raise UserError("--data and --text are for perplexity; add it: --tasks perplexity," + ",".join(names))
    if lang and not text and names == ("perplexity",):
        raise UserError("--lang belongs to --text or to tasks")
    check_target(json)
    check_target(html, "--html")
    if against is not None:
        # told now, not after the first one's hours
        resolve(against)
    source = read_text(text) if text else None
    wanted = EvalRequest(
        names, source, tuple(data or ()), lang, context, windows, limit, shots, task_files, cache
    )
    manager = check_tasks(wanted)
    out, side = console(json == "-"), console(json_output=True)
    settings = {"dtype": dtype, "effort": effort, "exit_threshold": exit_threshold}
    head, measured = _measured(run, wanted, manager, device, side, text, **settings)
    result = {
        **head,
        **(measured.scores.as_dict() if measured.scores else {}),
        "figures": [f.as_dict() for f in measured.figures],
    }
    result |= {"notes": measured.notes, "lm_eval": measured.harness}
    comparisons = []
    # as it is: --dtype and the like are the first one's, so that a run can be compared with itself in int8
    if against is not None:
        same = replace(wanted, context=head["context"], folders=tuple(map(Path, head["folders"])))
        other, others = _measured(against, same, manager, device, side, text)
        comparisons = compare_all(measured.figures, others.figures)
        result |= {"against": other, "comparisons": [comparison.as_dict() for comparison in comparisons]}
    deliver(result, json)
    if html is not None:
        from braingpt.evaluation.page import page
        from braingpt.utils.atomic_write import write_whole

        write_whole(html, page(result, measured, comparisons))
    _print(out, result, measured, comparisons)
    if html is not None:
        out.print(f"page: {html}", soft_wrap=True, markup=False)


def _measured(
    run: Path | None,
    wanted: Any,
    manager: Any,
    device: str,
    side: Any,
    text: Path | None,
    dtype: str = "float32",
    **exits: float | None,
) -> tuple[dict[str, Any], Any]:
    """What is said of the checkpoint, and its figures."""
    from braingpt import __version__
    from braingpt.evaluation.runner import measure

    model, tokenizer, recipe, state, folder = open_run(run, device, side, dtype, **exits)
    weights = state["files"]["model.safetensors"]["sha256"]
    settings = "-".join(f"{value:g}" for value in exits.values() if value is not None)
    key = f"{__version__}-{weights[:16]}-{dtype}{'-' + settings if settings else ''}"
    context = wanted.context or recipe.train.context
    # the layers see all tokens, those that left unchanged
    leaving = model.early is not None and model.early.threshold is not None
    # else a token goes through all layers, and counting would take time
    counting = model.recording() if model.exits else nullcontext(())
    with fitting(context), side.status("opening") as status, counting as layers:
        name = folder.parent.parent.name
        measured = measure(
            model, tokenizer, recipe, wanted, manager, key, lambda what: status.update(f"{name}: {what}")
        )
    used = model.early.share() if leaving else 1.0
    if model.exits:
        used = sum(layer.arrived for layer in layers) / max(1, sum(layer.tokens for layer in layers))
    folders = [str(folder) for folder in wanted.folders or recipe.data.folders]
    head = {
        "run": str(folder),
        "recipe": recipe.name,
        "step": state["step"],
        "tasks": list(wanted.tasks),
        "data": (str(text) if text else ", ".join(folders)) if measured.scores else None,
        "folders": [] if text else folders,
        "context": context,
        "dtype": dtype,
        "layers_used": used,
        "halting": bool(model.exits or leaving),
    }
    return head, measured


def _print(out: Any, result: dict[str, Any], measured: Any, comparisons: list[Any]) -> None:
    what = (
        f"{result['data']}, windows of {result['context']:,} tokens"
        if measured.scores
        else f"at most {result['context']:,} tokens"
    )
    out.print(f"{result['recipe']}, step {result['step']}: {what}", soft_wrap=True, markup=False)
    if result["halting"]:
        out.print(f"a token goes through {result['layers_used']:.1%} of the layers", soft_wrap=True)
    if measured.scores:
        out.print(_perplexities(measured))
    others = [figure for figure in measured.figures if figure.task != "perplexity"]
    if others:
        out.print(_tasks(others))
    if comparisons:
        other = result["against"]
        out.print(
            f"\nless {other['recipe']}, step {other['step']} ({other['run']}):", soft_wrap=True, markup=False
        )
        out.print(_differences(comparisons))
        out.print("p: how often chance alone parts them as far, each row by itself", style="dim")
    for note in measured.notes:
        out.print(note, soft_wrap=True, markup=False)


def _new_table(words: tuple[str, ...], numbers: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in words:
        table.add_column(head, overflow="fold")
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _perplexities(measured: Any) -> Any:
    table = _new_table(("language",), ("tokens", "loss", "perplexity", "bits per byte", "95 % interval"))
    bits = {
        figure.language: figure
        for figure in measured.figures
        if figure.name[::2] == ("perplexity", "bits_per_byte")
    }
    rows = list(measured.scores.by_language.items())
    for name, score in [*rows, *([("all", measured.scores)] if len(rows) > 1 else [])]:
        figures = (
            number(score.loss),
            number(score.perplexity, 2),
            number(score.bits_per_byte),
            span(bits[name].interval()),
        )
        table.add_row(name, f"{score.tokens:,}", *figures, style="bold" if name == "all" else None)
    return table


def _tasks(figures: list[Any]) -> Any:
    table = _new_table(("task",), ("value", "95 % interval", "chance", "items"))
    for figure in figures:
        chance = "-" if figure.chance is None else number(figure.chance)
        table.add_row(
            figure.label, number(figure.value), span(figure.interval()), chance, f"{len(figure.amount):,}"
        )
    return table


def _differences(comparisons: list[Any]) -> Any:
    """A row is bold where the interval leaves no room for no difference.

    The loss stays in the JSON: it says what bits per byte say.
    """
    table = _new_table(("task",), ("this", "that", "less", "95 % interval", "p"))
    for one in comparisons:
        if one.first.name[::2] == ("perplexity", "loss"):
            continue
        clear = one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)
        p = "-" if one.p is None else f"{one.p:.3f}" if one.p >= 0.001 else "<0.001"
        values = (
            number(one.first.value),
            number(one.second.value),
            f"{one.difference:+.4f}",
            span(one.interval, "+.4f", " to "),
        )
        table.add_row(one.first.label, *values, p, style="bold" if clear else None)
    return table


def span(interval: tuple[float, float] | None, form: str = ".3f", between: str = " - ") -> str:
    """An interval for a table."""
    return "-" if interval is None else f"{interval[0]:{form}}{between}{interval[1]:{form}}"
