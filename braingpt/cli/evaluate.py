"""`braingpt eval`: loss, perplexity and bits per byte by language, tasks, and whether one checkpoint differs
from another.
"""

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.cleaning import clean_input
from braingpt.cli.command import MODEL, OUTPUT, TEXT
from braingpt.cli.console import console, print_line
from braingpt.cli.evaluate_view import print_result
from braingpt.cli.json_output import Json, JsonFile, write_json
from braingpt.cli.options import (
    Device,
    Dtype,
    Effort,
    ExitThreshold,
    Run,
    check_output_files,
    check_output_folder,
    explain_out_of_memory,
    open_run,
    read_text,
)
from braingpt.utils.paths import printable

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from rich.console import Console

    from braingpt.evaluation.runner import EvalRequest, EvalResult


def evaluate(
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
    text: Annotated[
        Path | None,
        typer.Option(
            help="A text file to score instead of data; - is standard input.",
            show_default=False,
            rich_help_panel=TEXT,
        ),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="perplexity, recall, binding, classify, classify-new, or names of lm-eval's tasks.",
            rich_help_panel=TEXT,
        ),
    ] = "perplexity",
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Another checkpoint to compare with, measured on the same text and tasks.",
            show_default=False,
            rich_help_panel=MODEL,
            autocompletion=completion.runs,
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            help="Language of --text and of the tasks' texts. [default: detected]",
            show_default=False,
            rich_help_panel=TEXT,
            autocompletion=completion.languages,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens a window. [default: as in training]", show_default=False, min=1, rich_help_panel=TEXT
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(help="Validation windows for each language, at most.", min=1, rich_help_panel=TEXT)
    ] = 256,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Items of each task, at most. [default: all]",
            show_default=False,
            min=1,
            rich_help_panel=TEXT,
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Examples before each item of lm-eval's tasks. [default: the task's]",
            show_default=False,
            min=0,
            rich_help_panel=TEXT,
        ),
    ] = None,
    task_files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder with your own lm-eval tasks (YAML).",
            show_default=False,
            rich_help_panel=TEXT,
        ),
    ] = None,
    trust_task_code: Annotated[
        bool,
        typer.Option(
            "--trust-task-code",
            help="Let --task-files run the Python code that it names; only for folders that you have read.",
            rich_help_panel=TEXT,
        ),
    ] = False,
    cache: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Keep answers to lm-eval's tasks here, so that the same command continues.",
            rich_help_panel=TEXT,
        ),
    ] = Path(".cache/braingpt-eval"),
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    json_output: Json = False,
    json_file: JsonFile = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the result as one HTML page to FILE.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Measure how well a model predicts text and solves tasks.

    Loss, perplexity and bits per byte by language; tasks; the difference from another checkpoint.

    Examples:
        braingpt eval
        braingpt eval runs/nano-v2 --text novel.txt --lang en
        braingpt eval runs/nano-v2 --tasks perplexity,recall --against runs/nano-v1
    """
    # lm-eval draws a bar for each of its passes. Torch imports tqdm, which reads this variable then.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from braingpt.checkpoint.listing import resolve
    from braingpt.errors import UserError
    from braingpt.evaluation.runner import BUILT_IN, EvalRequest, check_tasks
    from braingpt.evaluation.uncertainty import compare_all

    names = tuple(dict.fromkeys(name for name in tasks.replace(" ", "").split(",") if name))
    if not names:
        raise UserError("--tasks names no task; try --tasks perplexity,recall")
    if data and text:
        raise UserError("--data and --text exclude each other; give one of them")
    if (data or text) and "perplexity" not in names:
        raise UserError(
            "--data and --text are for perplexity; add this task: --tasks perplexity," + ",".join(names)
        )
    if lang and not text and names == ("perplexity",):
        raise UserError("--lang is for --text and for tasks; leave it out, or add one of them")
    check_output_files(json_file=json_file, html=html)
    if task_files is not None or not {*names} <= {*BUILT_IN}:
        check_output_folder(cache, "--cache")
    if against is not None:
        # A wrong name is reported before the first checkpoint is measured, which may take hours.
        resolve(against)
    out, messages = console(stderr=json_output), console(stderr=True)
    source, changes = clean_input(read_text(text), f"{text} was", messages) if text else (None, None)
    wanted = EvalRequest(
        names,
        source,
        tuple(data or ()),
        lang,
        context,
        windows,
        limit,
        shots,
        task_files,
        trust_task_code,
        cache,
    )
    manager = check_tasks(wanted)
    settings = {"dtype": dtype, "effort": effort, "exit_threshold": exit_threshold}
    head, measured = _measure(run, wanted, manager, device, messages, text, **settings)
    result = {
        **head,
        **(measured.scores.as_dict() if measured.scores else {}),
        "figures": [figure.as_dict() for figure in measured.figures],
    }
    result |= {"notes": measured.notes, "lm_eval": measured.harness}
    result["cleaned"] = changes.as_dict() if changes is not None else None
    comparisons = []
    # --dtype, --effort and --exit-threshold are for the first checkpoint alone, so that a run can be compared
    # with itself in int8.
    if against is not None:
        same = replace(wanted, context=head["context"], folders=tuple(map(Path, head["folders"])))
        other, others = _measure(against, same, manager, device, messages, text)
        comparisons = compare_all(measured.figures, others.figures)
        result |= {"against": other, "comparisons": [comparison.as_dict() for comparison in comparisons]}
    write_json(result, json_output, json_file)
    if html is not None:
        from braingpt.evaluation.page import page
        from braingpt.utils.atomic_write import write_atomically

        write_atomically(html, page(result, measured, comparisons))
    print_result(out, result, measured, comparisons)
    if html is not None:
        print_line(out, f"page: {html}")


def _measure(
    run: Path | None,
    wanted: "EvalRequest",
    manager: "TaskManager | None",
    device: str,
    messages: "Console",
    text: Path | None,
    dtype: str = "float32",
    **exits: float | None,
) -> tuple[dict[str, Any], "EvalResult"]:
    """The entries of the result that describe the checkpoint, and its figures."""
    from braingpt import __version__
    from braingpt.checkpoint.state import weights_hash
    from braingpt.evaluation.runner import measure
    from braingpt.model.memory_limits import require_context

    model, tokenizer, recipe, state, folder = open_run(run, device, messages, dtype, **exits)
    weights = weights_hash(state)
    settings = "-".join(f"{value:g}" for value in exits.values() if value is not None)
    key = f"{__version__}-{weights[:16]}-{dtype}{'-' + settings if settings else ''}"
    context = wanted.context or recipe.train.context
    require_context(model, min(context, len(wanted.text.encode())) if wanted.text else context)
    early = model.early if model.early is not None and model.early.threshold is not None else None
    # Without exits each token passes through all layers, and counting would only take time.
    counting = model.recording() if model.exits else nullcontext(())
    with explain_out_of_memory(context), messages.status("opening") as status, counting as layers:
        name = folder.parent.parent.name
        measured = measure(
            model, tokenizer, recipe, wanted, manager, key, lambda what: status.update(f"{name}: {what}")
        )
    # v1's layers count all tokens, those that left early too, so that the share is the exits' own count.
    layers_used = early.share() if early is not None else 1.0
    if model.exits:
        layers_used = sum(layer.arrived for layer in layers) / max(1, sum(layer.tokens for layer in layers))
    folders = [str(folder) for folder in wanted.folders or recipe.data.folders]
    head = {
        "run": str(folder),
        "recipe": recipe.name,
        "step": state["step"],
        "tasks": list(wanted.tasks),
        "data": (printable(text) if text else ", ".join(folders)) if measured.scores else None,
        "folders": [] if text else folders,
        "context": context,
        "dtype": dtype,
        "layers_used": layers_used,
        "halting": bool(model.exits or early is not None),
    }
    return head, measured
