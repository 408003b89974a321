"""`braingpt inspect-sparsity`: what a model leaves out, layer by layer: promised, counted on real text, and achieved on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.output import Device, Effort, ExitThreshold, JsonFile, Run, check_out, check_target, deliver, fitting, open_run, read_text

WINDOWS = 8  # of each language's validation data


def inspect_sparsity(
    run: Run = None,
    text: Annotated[Path | None, typer.Option(help="A text to read; - is standard input. [default: validation data]")] = None,
    context: Annotated[int, typer.Option(help="Tokens a window.", min=2)] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds of timing against a dense twin; 0 measures no time.", min=0)] = 5,
    show: Annotated[int, typer.Option(metavar="N", help="Show the first N tokens by what was spent on them.", min=0)] = 120,
    growth: Annotated[bool, typer.Option("--growth", help="Also go through all checkpoints of the run.")] = False,
    memory: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also count what this memory is asked and answers.", show_default=False)
    ] = None,
    effort: Effort = None,
    exit_threshold: ExitThreshold = None,
    device: Device = "auto",
    json: JsonFile = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML page with all pictures.", show_default=False)] = None,
    png: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the pictures as PNG files.", show_default=False)] = None,
) -> None:
    """Show what is really sparse in a model. Tokens, keys, columns, neurons, weights, work; and what it brings in time and bytes."""
    from braingpt.inspection.look import Text, look
    from braingpt.inspection.look import growth as grow
    from braingpt.inspection.page import page, pictures
    from braingpt.report.png import check_png, write_png

    check_target(json)
    check_target(html, "--html")
    if png is not None:
        check_png()
        check_out(png, "--png")
    source = read_text(text) if text else None
    out, side = console(json == "-"), console(json_output=True)
    model, tokenizer, recipe, state, folder = open_run(run, device, side, effort=effort, exit_threshold=exit_threshold)
    name, parts = _parts(source, str(text), recipe, tokenizer, context)
    windows = Text.of(parts, context)
    recalled = None
    with fitting(context):
        found = look(model, tokenizer, windows, rounds)
        if memory is not None:
            from braingpt.inspection.remembered import remembered
            from braingpt.memory.file import load_memory, weights_of

            recalled = remembered(model, load_memory(memory, weights_of(state)), windows.windows)
        grown = list(grow(_checkpoints(folder, model.device), windows)) if growth else []
    total, active = model.parameters_total(), model.parameters_active()
    head = {"run": str(folder), "recipe": recipe.name, "step": state["step"], "text": name}
    figures = {**head, "parameters_total": total, "parameters_active": active, **found.as_dict(), "growth": grown, "episodic": recalled}
    deliver(figures, json)
    drawn = pictures(found, grown) if html or png else {}
    if html:
        from braingpt.files import write_whole

        write_whole(html, page(head, found, drawn, tokenizer))
    if png:
        png.mkdir(parents=True, exist_ok=True)
        for title, svg in drawn.items():
            write_png(svg, png / f"{title}.png")
    _print(out, head, found, grown, tokenizer, show)
    if recalled is not None:
        out.print(
            f"memory of {recalled['entries']:,} entries: {recalled['reads']:,} reads of {recalled['entries_read']} each, "
            f"{recalled['believed'] / recalled['tokens']:.1%} believed; "
            f"{recalled['surprising'] / recalled['tokens']:.1%} of the tokens surprise the model and would be written if it were taught the text",
            soft_wrap=True,
        )
    out.print(f"parameters a token multiplies with: {active:,} of {total:,} ({active / total:.0%}), head included")
    for what, place in (("page", html), ("pictures", png)):
        if place:
            out.print(f"{what}: {place}", soft_wrap=True, markup=False)


def _parts(source: str | None, name: str, recipe: Any, tokenizer: Any, context: int) -> tuple[str, list[tuple[str | None, list[int]]]]:
    """The text's name, and (language, tokens): the text given, some validation windows of each language, or a built-in paragraph."""
    from braingpt.data.shards import ShardSet
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


def _checkpoints(folder: Path, device: Any) -> Iterator[tuple[int, Any]]:
    """(step, model) of each checkpoint of the run, oldest first."""
    from braingpt.errors import UserError
    from braingpt.train.checkpoint import list_checkpoints, load_model

    run = folder.parent.parent
    found = list_checkpoints(run)
    if len(found) < 2:
        raise UserError(f"--growth needs a run with several checkpoints; {run} has {len(found)} (train.keep keeps more of them)")
    for checkpoint in found:
        model, _, _, state = load_model(checkpoint, device)
        yield state["step"], model


def _print(out: Any, head: dict[str, Any], found: Any, grown: list[dict[str, Any]], tokenizer: Any, show: int) -> None:
    from braingpt.cli import inspect_view as view

    report = found.report
    out.print(
        f"{head['recipe']}, step {head['step']}: {report.tokens:,} tokens of {head['text']}, windows of {report.context}", soft_wrap=True
    )
    out.print(view.layers(report))
    out.print("computed: arithmetic done over that of the same shape done densely; said: by the recipe", style="dim")
    for line in _lines(report, found):
        out.print(line, soft_wrap=True)
    if found.achieved:
        out.print("\nof a dense twin's, on this machine:")
        out.print(view.achieved(found.achieved))
    if found.told:
        out.print("\nwhat the winning column tells, as a share of all there is to know:")
        out.print(view.told(found))
        out.print("\ncolumns, from none of the tokens (blank) to twice an even share (full):")
        for line in view.columns(found):
            out.print(line, markup=False)
    if grown:
        out.print("\nover training:")
        for one in grown:
            shares = ", ".join(
                f"{name.replace('_', ' ')} {view.share(one[name])}" for name in ("neurons_fired", "load_entropy") if one[name] is not None
            )
            out.print(f"step {one['step']:,}: {shares}, computed {view.share(one['computed'])}", soft_wrap=True)
    if show:
        spent = found.as_dict()["spent"]
        out.print(
            f"\nspent on a token, of what the layers could: {spent['lowest']:.0%} to {spent['highest']:.0%}, median {spent['median']:.0%}"
        )
        out.print(view.text(found, tokenizer, show, min(out.width, 80)), soft_wrap=True)


def _lines(report: Any, found: Any) -> list[str]:
    """What only some models have."""
    total, lines = report.total, []
    if report.promised["two_four"]:
        lines.append(f"2:4 form: {total.two_four:.1%} of the MLP's weights in fours")
    if total.memory_reads:
        lines.append(f"memory: {total.memory_reads:,} reads; {total.memory_writes:,} writes that bound more than half of what was new")
    if total.depth < 1 or min(found.depths()[-1:]) < report.tokens:
        tokens = ", ".join(f"{layers}: {count / report.tokens:.0%}" for layers, count in enumerate(found.depths()) if count)
        lines.append(f"tokens by layers gone through: {tokens}")
    return lines
