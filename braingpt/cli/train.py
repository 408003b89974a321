"""`braingpt train`: a model trained from a recipe on prepared data, in a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from braingpt.cli import completion
from braingpt.cli.command import DATA, MACHINE, OUTPUT
from braingpt.cli.console import console, print_line
from braingpt.cli.invocation import command_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import Device

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from braingpt.recipes import Recipe
    from braingpt.train.plan.plan import Plan
    from braingpt.train.run.result import Result

# Generated texts in the report: languages, and tokens of each.
SAMPLE_LANGUAGES, SAMPLE_TOKENS = 3, 48


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="A shipped recipe (`braingpt recipes` lists them) or a YAML file.",
            rich_help_panel=DATA,
            autocompletion=completion.recipes,
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="A prepared data folder, may be repeated. [default: the recipe's]",
            show_default=False,
            rich_help_panel=DATA,
            autocompletion=completion.prepared_folders,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The run folder. [default: runs/ and the recipe's name]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a recipe value, for example `train.lr=1e-3`; may be repeated.",
            rich_help_panel=DATA,
            autocompletion=completion.recipe_keys,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            help="Continue from the newest checkpoint (auto) or from a checkpoint folder.",
            autocompletion=completion.checkpoints_to_resume,
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Estimate memory, disk and time, then exit.")] = False,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the model with torch.compile.", rich_help_panel=MACHINE)
    ] = False,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Train a model from a recipe.

    A line of validation ends with shares of what the model computed. `attended`: tokens that take part in
    selective attention. `keys`: query-key pairs that attention computes. `columns`: columns that run for a
    token. `depth`: layers that a token goes through. `computed`: arithmetic, over that of the same shape done
    densely. `imbalance` is the load of the busiest column over the mean load; 1.0 is even.

    Examples:
        braingpt train --recipe nano-v2
        braingpt train --recipe tiny-v2 --plan
        braingpt train --recipe nano-v2 --data data/notes --set train.steps=500 --out runs/notes
        braingpt train --resume auto --out runs/notes
    """
    from braingpt.device.cpu import configure_cpu

    # This comes before any computation, because threads inherit the flag.
    configure_cpu()
    from braingpt.checkpoint.listing import resolve
    from braingpt.device.core_sharing import share_cores
    from braingpt.device.device import pick_device
    from braingpt.distributed.world import rank_of_environment
    from braingpt.errors import UserError, mark_reported
    from braingpt.train import loop
    from braingpt.train.agreement import recipe_to_train
    from braingpt.train.run.folder import run_of
    from braingpt.train.run.progress import Reporter, reporter_for
    from braingpt.train.run.report import REPORT

    settings = [*(overrides or []), *(["train.compile=true"] if compile_model else [])]
    try:
        chosen = recipe_to_train(recipe, out, resume, settings)
        out = out or (run_of(resolve(resume)) if resume and resume != "auto" else Path("runs") / chosen.name)
    except UserError as error:
        # All processes of a machine meet the error, and the first one prints it.
        mark_reported(error, elsewhere=rank_of_environment("LOCAL_RANK") > 0)
        raise
    own_folders = any(setting.startswith(("data.folders", "data=")) for setting in settings)
    folders = data or ([Path(folder) for folder in chosen.data.folders] if own_folders else None)
    screen = console(json_output)
    if plan:
        _print_plan(
            chosen, folders or [Path(folder) for folder in chosen.data.folders], device, screen, json_output
        )
        return
    if pick_device(None if device == "auto" else device).type == "cpu":
        share_cores(lambda line: print_line(screen, f"note: {line}"))
    # Of several processes the first one prints.
    first = rank_of_environment() == 0
    result = loop.train(
        chosen,
        out,
        folders,
        resume=resume,
        reporter=reporter_for(screen) if first else Reporter(),
        device=device,
    )
    if not first:
        return
    if json_output:
        print_json(result.as_dict() | {"resume": _resume_command(out) if result.interrupted else None})
    if result.interrupted:
        saved = f"checkpoint {result.checkpoint}" if result.checkpoint else "nothing saved yet"
        stopped = f"stopped after step {result.step} of {result.steps}, {saved}"
        print_line(console(stderr=True), f"{stopped}; continue with: {_resume_command(out)}")
        raise SystemExit(130)
    # A process that was killed at the very end may have left none.
    if result.taken or not (Path(result.run) / REPORT).is_file():
        _report(result, screen)
    if not json_output:
        _print_result(result, screen)


def _report(result: "Result", screen: "Console") -> None:
    """Write the report of the run, with a few generated words in each language."""
    from braingpt.checkpoint.load import load
    from braingpt.inference.text_stream import generate_text
    from braingpt.train.run.report import write_report

    with screen.status("writing the report"):
        model, tokenizer = load(result.run)
        languages = list((result.validation or {"by_language": {}})["by_language"])[:SAMPLE_LANGUAGES]
        samples = {
            language: "".join(
                generate_text(
                    model,
                    tokenizer,
                    "",
                    language=language,
                    max_new_tokens=SAMPLE_TOKENS,
                    temperature=0.8,
                    top_p=0.95,
                    seed=0,
                )
            )
            for language in languages
        }
        write_report(Path(result.run), samples)


def _resume_command(out: Path) -> str:
    return command_line("train", "--resume", "auto", "--out", out)


def _print_plan(
    recipe: "Recipe", folders: list[Path], device: str, screen: "Console", json_output: bool
) -> None:
    """Print the plan as a table, with activations and time measured on a few layers.

    Where data are not prepared, the command that prepares them is printed too.
    """
    from braingpt.device.device import pick_device
    from braingpt.errors import UserError
    from braingpt.train.batches import batches_of, open_data, training_tokens
    from braingpt.train.plan.limits import why_too_large
    from braingpt.train.plan.plan import plan_run, shortfall
    from braingpt.train.plan.step_cost import why_not_measured
    from braingpt.train.preflight import many_epochs

    tokens = epochs = missing = None
    place = pick_device(device)
    try:
        tokenizer, shards = open_data(folders, recipe)
        tokens = training_tokens(shards)
        epochs = batches_of(recipe, shards, tokenizer).epochs(recipe.train.steps)
    except UserError as error:
        missing = str(error)
    with screen.status("measuring a few layers"):
        too_large = why_too_large(recipe, place)
        plan, available_bytes = plan_run(recipe, place, tokens, epochs, thorough=True, measured=not too_large)
    if json_output:
        print_json(plan.as_dict() | {"data_missing": missing, "available_bytes": available_bytes})
        return
    screen.print(_plan_table(plan, available_bytes, place.type == "cpu"))
    if too_large:
        print_line(screen, f"the run does not fit: {too_large}")
    elif reason := why_not_measured(recipe, place, available_bytes):
        estimates = "activations are counted generously, and the time is that of the matrix products alone"
        print_line(screen, f"nothing was measured, because {reason}: {estimates}")
    elif short := shortfall(plan, available_bytes, place):
        print_line(screen, f"the run does not fit into free memory: {short}")
    for line in (many_epochs(plan), missing):
        if line:
            print_line(screen, line)


def _plan_table(plan: "Plan", available_bytes: int, on_cpu: bool) -> "Table":
    """One row for each figure of the plan."""
    from rich.table import Table

    from braingpt.utils.formatting import byte_size, planned_duration, short_count

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("parameters, total", short_count(plan.parameters_total))
    table.add_row("parameters, active per token", short_count(plan.parameters_active))
    table.add_row("forward FLOPs per token", short_count(plan.flops_per_token))
    table.add_row("training FLOPs, whole run", f"{plan.training_flops:.2e}")
    table.add_row("memory: weights and buffers", byte_size(plan.weights_bytes))
    table.add_row("memory: gradients", byte_size(plan.gradients_bytes))
    table.add_row("memory: optimizer", byte_size(plan.optimizer_bytes))
    if plan.average_bytes:
        table.add_row("memory: averaged weights", byte_size(plan.average_bytes))
    table.add_row(
        f"memory: activations and logits of {plan.micro_batch} windows", _size(plan.activations_bytes)
    )
    if plan.gathered_bytes:
        table.add_row("memory: weights and gradients of running blocks", byte_size(plan.gathered_bytes))
    table.add_row("memory at the peak", _size(plan.peak_bytes))
    if on_cpu:
        table.add_row("memory of the whole process", _size(plan.resident_bytes))
    if plan.host_bytes:
        table.add_row("memory of the host: weights, gradients, optimizer", byte_size(plan.host_bytes))
    table.add_row("memory available", byte_size(available_bytes))
    table.add_row("tokens per step", f"{plan.tokens_per_step:,}")
    table.add_row("steps", f"{plan.steps:,}")
    if len(plan.stages) > 1:
        table.add_row(
            "growth stages: layers (steps)",
            ", ".join(f"{layers} ({steps:,})" for layers, steps in plan.stages),
        )
    table.add_row("tokens, whole run", short_count(plan.tokens))
    table.add_row("tokens in the data", short_count(plan.data_tokens) if plan.data_tokens else "not prepared")
    if plan.epochs is not None:
        table.add_row("epochs", f"{plan.epochs:.2f}")
    for language, count in (plan.epochs_by_language or {}).items():
        table.add_row(f"epochs of {language}", f"{count:.2f}")
    table.add_row("disk per checkpoint", byte_size(plan.checkpoint_bytes))
    table.add_row("disk, whole run", byte_size(plan.disk_bytes))
    excluded = "transfers to the host, " if plan.host_bytes else ""
    table.add_row(
        f"time, without {excluded}validation and saving",
        planned_duration(plan.seconds) if plan.seconds is not None else "-",
    )
    return table


def _size(count: int | None) -> str:
    """Bytes for the table; a dash where nothing was measured."""
    from braingpt.utils.formatting import byte_size

    return "-" if count is None else byte_size(count)


def _print_result(result: "Result", screen: "Console") -> None:
    from braingpt.utils.formatting import byte_size, duration

    if not result.taken:
        screen.print(
            f"{result.run} has no steps left; to continue, --set train.steps=N with N above {result.steps}",
            soft_wrap=True,
        )
        return
    best = (
        f", best validation loss {result.best['loss']:.3f} at step {result.best['step']}"
        if result.best
        else ""
    )
    trouble = (
        ("updates skipped", result.skipped),
        ("loss spikes", result.spikes),
        ("rewinds", result.rewinds),
    )
    troubles = "".join(f", {name}: {count}" for name, count in trouble if count)
    speed = f"{result.tokens / result.seconds:,.0f} tokens/s, " if result.seconds else ""
    memory = f"peak memory {byte_size(result.peak_memory_bytes)}"
    screen.print(
        f"step {result.step}{best}{troubles}; {duration(result.seconds)} of training, {speed}{memory}\n"
        f"checkpoint {result.checkpoint}, report {result.run}/report.md\n"
        f"next: {command_line('generate', Path(result.run))}   {command_line('eval', Path(result.run))}",
        soft_wrap=True,
    )
