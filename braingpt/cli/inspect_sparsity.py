"""`braingpt inspect-sparsity`: what a model leaves out, layer by layer: promised, counted on real text, and
achieved on this machine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.options import (
    Device,
    Effort,
    ExitThreshold,
    JsonFile,
    Run,
    check_out,
    check_target,
    deliver,
    fitting,
    open_run,
    read_text,
)

# of each language's validation data
WINDOWS = 8


def inspect_sparsity(
    run: Run = None,
    text: Annotated[
        Path | None, typer.Option(help="A text to read; - is standard input. [default: validation data]")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens a window.", min=2)] = 256,
    rounds: Annotated[
        int, typer.Option(help="Rounds of timing against a dense twin; 0 measures no time.", min=0)
    ] = 5,
    show: Annotated[
        int, typer.Option(metavar="N", help="Show the first N tokens by what was spent on them.", min=0)
    ] = 120,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also go through all checkpoints of the run.")
    ] = False,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also count what this memory is asked and answers.", show_default=False
        ),
    ] = None,
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    device: Device = "auto",
    json: JsonFile = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one HTML page with all pictures.", show_default=False),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the pictures as PNG files.", show_default=False),
    ] = None,
) -> None:
    """Show what is really sparse in a model.

    Tokens, keys, columns, neurons, weights, work; and what it brings in time and bytes.
    """
    from braingpt.cli import inspect_sparsity_view as view
    from braingpt.html.png import check_png, write_png
    from braingpt.inspection.memory_use import count_memory_use
    from braingpt.inspection.page import page, pictures
    from braingpt.inspection.runner import TokenWindows, inspect_model
    from braingpt.inspection.runner import sparsity_over_training as grow
    from braingpt.utils.atomic_write import write_whole

    check_target(json)
    check_target(html, "--html")
    if png is not None:
        check_png()
        check_out(png, "--png")
    source = read_text(text) if text else None
    out, side = console(json == "-"), console(json_output=True)
    model, tokenizer, recipe, state, folder = open_run(
        run, device, side, effort=effort, exit_threshold=exit_threshold
    )
    checkpoints = _checkpoints(folder) if growth else []
    taught = _memory(memory, state) if memory else None
    name, parts = _parts(source, str(text), recipe, tokenizer, context)
    windows = TokenWindows.of(parts, context)
    if rounds and not _twin_fits(model):
        side.print("not measured against a dense twin: it does not fit beside the model", soft_wrap=True)
        rounds = 0
    with fitting(context), side.status("opening", refresh_per_second=2) as status:
        found = inspect_model(model, tokenizer, windows, rounds, status.update)
        recalled = count_memory_use(model, taught, windows.windows) if taught else None
        grown = list(grow(_models(checkpoints, model.device, status.update), windows))
    head = {"run": str(folder), "recipe": recipe.name, "step": state["step"], "text": name}
    parameters = {
        "parameters_total": model.parameters_total(),
        "parameters_active": model.parameters_active(),
    }
    deliver({**head, **parameters, **found.as_dict(), "growth": grown, "episodic": recalled}, json)
    drawn = pictures(found, grown) if html or png else {}
    if html:
        write_whole(html, page(head, found, drawn, tokenizer))
    if png:
        png.mkdir(parents=True, exist_ok=True)
        for title, svg in drawn.items():
            write_png(svg, png / f"{title}.png")
    _print(out, head, parameters, found, grown, recalled)
    if show:
        view.print_text(out, found, tokenizer, show)
    for what, place in (("page", html), ("pictures", png)):
        if place:
            out.print(f"{what}: {place}", soft_wrap=True, markup=False)


def _parts(
    source: str | None, name: str, recipe: Any, tokenizer: Any, context: int
) -> tuple[str, list[tuple[str | None, list[int]]]]:
    """The text's name, and (language, tokens): the text given, some validation windows of each language, or a
    built-in paragraph.
    """
    from braingpt.data.shards.reader import ShardSet
    from braingpt.errors import UserError
    from braingpt.inspection.sparsity import SAMPLE

    if source is not None:
        if not source.strip():
            raise UserError("the text is empty; there is nothing to look at")
        return name, [(None, tokenizer.encode(source, language="auto"))]
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
    """Those of the run, oldest first. UserError where there is nothing to compare."""
    from braingpt.checkpoint.listing import list_checkpoints
    from braingpt.errors import UserError

    run = folder.parent.parent
    found = list_checkpoints(run)
    if len(found) < 2:
        raise UserError(
            f"--growth needs a run with several checkpoints; {run} has {len(found)} (train.keep keeps more of them)"
        )
    return found


def _models(checkpoints: list[Path], device: Any, say: Callable[[str], None]) -> Iterator[tuple[int, Any]]:
    from braingpt.checkpoint.checkpoint import load_model

    for checkpoint in checkpoints:
        say(checkpoint.name)
        model, _, _, state = load_model(checkpoint, device)
        yield state["step"], model


def _memory(file: Path, state: dict[str, Any]) -> Any:
    from braingpt.checkpoint.checkpoint import weights_hash
    from braingpt.episodic.storage import load_memory

    return load_memory(file, weights_hash(state))


def _twin_fits(model: Any) -> bool:
    """Whether a dense model with as many parameters has room."""
    from braingpt.device.free_memory import free_memory

    return 1.2 * model.parameters_total() * model.embedding.weight.element_size() < free_memory(model.device)


def _print(
    out: Any,
    head: dict[str, Any],
    parameters: dict[str, int],
    found: Any,
    grown: list[dict[str, Any]],
    recalled: dict[str, int] | None,
) -> None:
    from braingpt.cli import inspect_sparsity_view as view

    report, (total, active) = found.report, parameters.values()
    out.print(
        f"{head['recipe']}, step {head['step']}: {report.tokens:,} tokens of {head['text']}, windows of {report.context}",
        soft_wrap=True,
        markup=False,
    )
    out.print(view.layers(report))
    for line in view.some_models_have(found):
        out.print(line, soft_wrap=True)
    out.print(
        f"parameters a token multiplies with: {active:,} of {total:,} ({active / total:.0%}), head included"
    )
    out.print(
        "computed: arithmetic done over that of the same shape done densely; said: by recipe",
        style="dim",
        soft_wrap=True,
    )
    if recalled is not None:
        for line in view.recalled(recalled):
            out.print(line, soft_wrap=True)
    if found.achieved:
        out.print("\nof a dense twin's, on this machine:")
        out.print(view.achieved(found.achieved))
        if busy := view.busy():
            out.print(busy, style="dim")
    if found.specialisation:
        out.print("\nwhat the winning column tells, as a share of all there is to know:")
        out.print(view.told(found))
        out.print("\ncolumns, from none of the tokens (blank) to twice an even share (full):")
        for line in view.columns(found):
            out.print(line, markup=False)
    if grown:
        out.print("\nover training:")
        out.print(view.grown(grown))
