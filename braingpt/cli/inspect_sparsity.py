"""`braingpt inspect-sparsity`: what a model skips, layer by layer: promised by the recipe, counted on real
text, and achieved on this machine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.cleaning import clean_input
from braingpt.cli.command import MODEL, OUTPUT, TEXT
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, JsonFile, write_json
from braingpt.cli.options import (
    Device,
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
    import torch
    from rich.console import Console

    from braingpt.inspection.runner import Inspection
    from braingpt.model.lm import LanguageModel
    from braingpt.recipes import Recipe
    from braingpt.tokenizer import Tokenizer

# Windows of each language's validation data.
WINDOWS = 8
# Memory for a dense twin, over the bytes of the model's own parameters.
TWIN_MARGIN = 1.2
LEGEND = (
    "tokens: share that attends. keys: share of the query-key pairs. depth: share that reaches the layer. "
    "dendr.: share of dendrites that open. columns: share computed for a token. dead: columns that won no "
    "token. even: evenness of the columns' load, at most 1. neurons: share that fired. zero w.: share of "
    "zero weights. computed: arithmetic as a share of a dense layer's. recipe: what the recipe promises."
)


def inspect_sparsity(
    run: Run = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="A text file to read; - is standard input. [default: validation data]", rich_help_panel=TEXT
        ),
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens a window.", min=2, rich_help_panel=TEXT)] = 256,
    rounds: Annotated[
        int, typer.Option(help="Rounds of timing against a dense twin; 0 skips the timing.", min=0)
    ] = 5,
    show: Annotated[
        int, typer.Option(metavar="N", help="Show what was spent on the first N tokens.", min=0)
    ] = 120,
    growth: Annotated[bool, typer.Option("--growth", help="Measure all checkpoints of the run too.")] = False,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Count the reads of this memory file too.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    device: Device = "auto",
    json_output: Json = False,
    json_file: JsonFile = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one HTML page with all plots to FILE.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the plots as PNG files to FOLDER.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Show how sparse a model really is.

    Tokens, keys, columns, neurons, weights and arithmetic, and what this saves in time and bytes.

    Examples:
        braingpt inspect-sparsity
        braingpt inspect-sparsity runs/nano-v2 --text novel.txt --rounds 0 --html inside.html
    """
    from braingpt.cli import inspect_sparsity_view as view
    from braingpt.cli.memory import load_for
    from braingpt.html.figure import MISSING_LETTERS, write_png
    from braingpt.inspection.memory_use import count_memory_use
    from braingpt.inspection.page import page, pictures
    from braingpt.inspection.runner import TokenWindows, inspect_model
    from braingpt.inspection.runner import sparsity_over_training as grow
    from braingpt.model.memory_limits import require_context
    from braingpt.utils.atomic_write import write_atomically

    check_output_files(json_file=json_file, html=html)
    if png is not None:
        check_output_folder(png, "--png")
    out, messages = console(stderr=json_output), console(stderr=True)
    source, changes = (
        clean_input(read_text(text), f"{printable(text)} was", messages) if text else (None, None)
    )
    opened = open_run(run, device, messages, effort=effort, exit_threshold=exit_threshold)
    model, tokenizer, recipe, state, folder = opened
    require_context(model, min(context, len(source.encode())) if source else context)
    checkpoints = _checkpoints(folder) if growth else []
    episodic = load_for(opened, memory, messages) if memory else None
    name, parts = _parts(source, printable(text or ""), recipe, tokenizer, context)
    windows = TokenWindows.of(parts, context)
    if rounds and not _twin_fits(model):
        print_line(messages, "no timing against a dense twin: it does not fit into memory beside the model")
        rounds = 0
    with explain_out_of_memory(context), messages.status("opening", refresh_per_second=2) as status:
        inspection = inspect_model(model, tokenizer, windows, rounds, status.update)
        memory_use = count_memory_use(model, episodic, windows.windows) if episodic else None
        over_training = list(grow(_models(checkpoints, model.device, status.update), windows))
    head = {"run": str(folder), "recipe": recipe.name, "step": state["step"], "text": name}
    parameters = {
        "parameters_total": model.parameters_total(),
        "parameters_active": model.parameters_active(),
    }
    result = {**head, **parameters, **inspection.as_dict(), "growth": over_training, "episodic": memory_use}
    result["cleaned"] = changes.as_dict() if changes is not None else None
    write_json(result, json_output, json_file)
    plots = pictures(inspection, over_training) if html or png else {}
    if html:
        write_atomically(html, page(head, inspection, plots, tokenizer))
    if png:
        png.mkdir(parents=True, exist_ok=True)
        for title, plot in plots.items():
            write_png(plot, png / f"{title}.png")
        if any(plot.letters_missing() for plot in plots.values()):
            print_line(messages, MISSING_LETTERS)
    _print_result(out, head, parameters, inspection, over_training, memory_use)
    if show:
        view.print_tokens(out, inspection, tokenizer, show)
    for name, path in (("page", html), ("plots", png)):
        if path:
            print_line(out, f"{name}: {path}")


def _parts(
    source: str | None, name: str, recipe: "Recipe", tokenizer: "Tokenizer", context: int
) -> tuple[str, list[tuple[str | None, list[int]]]]:
    """The text's name, and (language, tokens) of its parts: the given text, some validation windows of each
    language, or a built-in paragraph.
    """
    from braingpt.data.shards.reader import ShardSet
    from braingpt.errors import UserError
    from braingpt.inspection.sparsity import SAMPLE, document_ids

    if source is not None:
        return name, [(None, document_ids(tokenizer, source))]
    try:
        shards = ShardSet.open(recipe.data.folders, tokenizer)
    except UserError:
        return "a built-in paragraph", [(None, tokenizer.encode(SAMPLE, language="auto"))]
    parts: list[tuple[str | None, list[int]]] = []
    for language in shards.languages("validation"):
        length = min(shards.tokens("validation", language), WINDOWS * context)
        parts.append((language, shards.window("validation", language, 0, length).tolist()))
    return f"{', '.join(recipe.data.folders)} (validation)", parts


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run, oldest first. UserError where there are fewer than two."""
    from braingpt.checkpoint.listing import list_checkpoints
    from braingpt.errors import UserError

    run = folder.parent.parent
    checkpoints = list_checkpoints(run)
    if len(checkpoints) < 2:
        raise UserError(
            f"--growth needs a run with several checkpoints; {run} has {len(checkpoints)} "
            "(a larger train.keep keeps more)"
        )
    return checkpoints


def _models(
    checkpoints: list[Path], device: "torch.device", report: Callable[[str], None]
) -> Iterator[tuple[int, "LanguageModel"]]:
    """(step, model) of each checkpoint that its run has not deleted; `report` receives its name first."""
    from braingpt.checkpoint.checkpoint import load_model
    from braingpt.checkpoint.listing import held

    for checkpoint in checkpoints:
        report(checkpoint.name)
        with held(checkpoint) as there:
            if there:
                model, _, _, state = load_model(checkpoint, device)
                yield state["step"], model


def _twin_fits(model: "LanguageModel") -> bool:
    """Whether a dense model with as many parameters fits into free memory."""
    from braingpt.device.free_memory import free_memory

    needed = TWIN_MARGIN * model.parameters_total() * model.embedding.weight.element_size()
    return needed < free_memory(model.device)


def _print_result(
    out: "Console",
    head: dict[str, Any],
    parameters: dict[str, int],
    inspection: "Inspection",
    over_training: list[dict[str, Any]],
    memory_use: dict[str, int] | None,
) -> None:
    from braingpt.cli import inspect_sparsity_view as view

    report, (total, active) = inspection.report, parameters.values()
    tokens = f"{report.tokens:,} tokens of {head['text']}, windows of {report.context}"
    print_line(out, f"{head['recipe']}, step {head['step']}: {tokens}")
    out.print(view.layer_table(report))
    for line in view.optional_lines(inspection):
        print_line(out, line)
    print_line(
        out,
        f"parameters a token multiplies with: {active:,} of {total:,} ({active / total:.0%}), head included",
    )
    out.print(LEGEND, style="dim")
    if memory_use is not None:
        for line in view.memory_lines(memory_use):
            print_line(out, line)
    if inspection.achieved:
        out.print("\ncompared with a dense twin on this machine (100% is the twin's):")
        out.print(view.twin_table(inspection.achieved))
        if busy := view.busy_line():
            out.print(busy, style="dim")
    if inspection.specialisation:
        out.print("\nwhat the winning column reveals about a token (100% is everything):")
        out.print(view.specialisation_table(inspection))
        out.print("\ncolumns, from none of the tokens (blank) to twice an even share (full):")
        for line in view.column_lines(inspection):
            out.print(line, markup=False)
    if over_training:
        out.print("\nover training:")
        out.print(view.training_table(over_training))
