"""`braingpt train`: a recipe and prepared data to a run folder."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.console import Json, console, print_json
from braingpt.cli.options import Device

# languages, and tokens of each, in the report
SAMPLES, SAMPLE_TOKENS = 3, 48


def train(
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A shipped recipe (`braingpt recipes` lists them) or a YAML file."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", metavar="FOLDER", help="A prepared folder; may be repeated. Default: the recipe's."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder. Default: runs/ and the recipe's name.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the recipe, like train.lr=1e-3."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", help="auto: go on from the newest checkpoint; or a checkpoint folder."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the run would take, and stop.")] = False,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Run the model through torch.compile.")
    ] = False,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Train a model from a recipe."""
    from braingpt.device.cpu import configure_cpu

    # before anything computes: threads inherit the flag
    configure_cpu()
    from braingpt.checkpoint.listing import resolve
    from braingpt.distributed.world import rank_of_environment
    from braingpt.errors import UserError, mark_reported
    from braingpt.train import loop
    from braingpt.train.agreement import recipe_to_train
    from braingpt.train.resume import run_of
    from braingpt.train.run.progress import Reporter, reporter_for

    settings = [*(overrides or []), *(["train.compile=true"] if compile_model else [])]
    try:
        chosen = recipe_to_train(recipe, out, resume, settings)
        out = out or (run_of(resolve(resume)) if resume and resume != "auto" else Path("runs") / chosen.name)
    except UserError as error:
        # all processes of a machine meet it
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
    # of several processes one speaks
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
        where = f"checkpoint {result.checkpoint}" if result.checkpoint else "nothing to save yet"
        stopped = f"stopped after step {result.step} of {result.steps}, {where}"
        console(True).print(f"{stopped}; go on with: {_resume_command(out)}", soft_wrap=True, markup=False)
        raise SystemExit(130)
    if result.taken:
        _report(result, screen)
    if not json_output:
        _print_result(result, screen)


def _report(result, screen) -> None:
    """Let the finished model write a few words of each language, and write the run's report."""
    from braingpt.checkpoint.load import load
    from braingpt.inference.text_stream import generate_text
    from braingpt.train.run.report import write_report

    with screen.status("writing the report"):
        model, tokenizer = load(result.run)
        languages = list((result.validation or {"by_language": {}})["by_language"])[:SAMPLES]
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
    import shlex

    return f"braingpt train --resume auto --out {shlex.quote(str(out))}"


def _print_plan(recipe, folders: list[Path], device: str, screen, json_output: bool) -> None:
    """The plan as a table, activations and time tried on a few layers; with data that are not prepared, the
    command that prepares them.
    """
    from braingpt.device.device import pick_device
    from braingpt.errors import UserError
    from braingpt.train.batches import batches_of, open_data, training_tokens
    from braingpt.train.plan.plan import plan_run, shortfall

    tokens = epochs = missing = None
    place = pick_device(device)
    try:
        tokenizer, shards = open_data(folders, recipe)
        tokens = training_tokens(shards)
        epochs = batches_of(recipe, shards, tokenizer).epochs(recipe.train.steps)
    except UserError as error:
        missing = str(error)
    with screen.status("trying a few layers"):
        plan, room = plan_run(recipe, place, tokens, epochs, thorough=True)
    if json_output:
        print_json(plan.as_dict() | {"data_missing": missing, "available_bytes": room})
        return
    screen.print(_plan_table(plan, room, place.type == "cpu"))
    if short := shortfall(plan, room, place):
        screen.print(f"it does not fit into the memory that is free here: {short}", soft_wrap=True)
    if missing:
        screen.print(missing, soft_wrap=True)


# -> rich.table.Table
def _plan_table(plan, room: int, on_cpu: bool):
    from rich.table import Table

    from braingpt.utils.formatting import byte_size, planned_duration, short_count

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("parameters, total", short_count(plan.parameters_total))
    table.add_row("parameters, active for a token", short_count(plan.parameters_active))
    table.add_row("forward FLOPs a token", short_count(plan.flops_per_token))
    table.add_row("training FLOPs, whole run", f"{plan.training_flops:.2e}")
    table.add_row("memory: weights and buffers", byte_size(plan.weights_bytes))
    table.add_row("memory: gradients", byte_size(plan.gradients_bytes))
    table.add_row("memory: optimizer", byte_size(plan.optimizer_bytes))
    if plan.average_bytes:
        table.add_row("memory: averaged weights", byte_size(plan.average_bytes))
    table.add_row(
        f"memory: activations and logits of {plan.micro_batch} windows", byte_size(plan.activations_bytes)
    )
    if plan.gathered_bytes:
        table.add_row("memory: weights and gradients of blocks at work", byte_size(plan.gathered_bytes))
    table.add_row("memory at the peak", byte_size(plan.peak_bytes))
    if on_cpu:
        table.add_row("memory of the whole process here", byte_size(plan.resident_bytes))
    if plan.host_bytes:
        table.add_row("memory of the host: weights, gradients, optimizer", byte_size(plan.host_bytes))
    table.add_row("memory to be used here", byte_size(room))
    table.add_row("tokens a step", f"{plan.tokens_per_step:,}")
    table.add_row("steps", f"{plan.steps:,}")
    if len(plan.stages) > 1:
        table.add_row(
            "layers (steps) of the stages of growth",
            ", ".join(f"{layers} ({steps:,})" for layers, steps in plan.stages),
        )
    table.add_row("tokens, whole run", short_count(plan.tokens))
    table.add_row("tokens in the data", short_count(plan.data_tokens) if plan.data_tokens else "not prepared")
    if plan.epochs is not None:
        table.add_row("epochs", f"{plan.epochs:.2f}")
    for language, count in (plan.epochs_by_language or {}).items():
        table.add_row(f"epochs of {language}", f"{count:.2f}")
    table.add_row("disk a checkpoint", byte_size(plan.checkpoint_bytes))
    table.add_row("disk, whole run", byte_size(plan.disk_bytes))
    left_out = "traffic with the host, " if plan.host_bytes else ""
    table.add_row(f"time here, {left_out}validations and saves not counted", planned_duration(plan.seconds))
    return table


def _print_result(result, screen) -> None:
    from braingpt.utils.formatting import byte_size, duration

    if not result.taken:
        screen.print(
            f"{result.run} has no steps left; --set train.steps=N with N above {result.steps} goes on",
            soft_wrap=True,
        )
        return
    best = (
        f", best validation loss {result.best['loss']:.3f} at step {result.best['step']}"
        if result.best
        else ""
    )
    trouble = (
        ("gradients left out", result.skipped),
        ("loss spikes", result.spikes),
        ("times gone back", result.rewinds),
    )
    skipped = "".join(f", {name}: {count}" for name, count in trouble if count)
    speed = f"{result.tokens / result.seconds:,.0f} tokens/s, " if result.seconds else ""
    screen.print(
        f"step {result.step}{best}{skipped}; {duration(result.seconds)} of training, {speed}peak memory {byte_size(result.peak_memory_bytes)}\n"
        f"checkpoint {result.checkpoint}, report {result.run}/report.md\nnext: braingpt generate {result.run}   braingpt eval {result.run}",
        soft_wrap=True,
    )
