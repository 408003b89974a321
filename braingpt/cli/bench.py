"""`braingpt bench`: architectures side by side, measured on this machine with real data."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from braingpt.cli.bench_kernels import kernels
from braingpt.cli.console import console
from braingpt.cli.output import JsonFile, check_target, deliver, number
from braingpt.cli.progress import Progress


class _Bench(TyperGroup):
    """`bench v1 v2` is short for `bench compare v1 v2`: what is no command is an argument of the first one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["compare", *args])


app = typer.Typer(cls=_Bench, help="Compare architectures (`bench v1 v2 dense`), or time single operations (`bench kernels`).")
app.command()(kernels)


@app.command()
def compare(
    architectures: Annotated[
        list[str], typer.Argument(metavar="ARCHITECTURE", help="v1, v2, dense: the first is what the others are compared with.")
    ],
    size: Annotated[str, typer.Option(help="The recipes' size: nano, tiny, small, ...")] = "nano",
    data: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="A prepared data folder, may be repeated. [default: the recipe's]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps each. [default: by size and device]", show_default=False)] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a window. [default: the recipe's]", show_default=False, min=2)] = None,
    batch: Annotated[int | None, typer.Option(help="Windows a step. [default: the recipe's, cut down on a CPU]", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's choice]", show_default=False, min=1)] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of each measurement.", min=1)] = 5,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of real text read before generating.", min=1)] = 256,
    new_tokens: Annotated[int, typer.Option(help="Tokens generated each round.", min=2)] = 64,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the steps of generation, of all alike: some minutes more.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: JsonFile = None,
) -> None:
    """Compare architectures on real text. Training speed and memory, generation speed and state, stability, quality after equal steps."""
    from braingpt.bench.suite import run_bench, settle

    check_target(json)
    out = console(json == "-")
    place = None if device == "auto" else device
    sizes = {"steps": steps, "context": context, "batch": batch, "threads": threads, "device": place}
    measured = {"rounds": rounds, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "compile": compiled}
    settings = settle(architectures, size, data or (), **sizes, **measured)
    with Progress(console(json_output=True)) as progress:
        report = run_bench(settings, progress)
    deliver(report, json)
    _print(out, report)


def _print(out: Any, report: dict[str, Any]) -> None:
    from rich.table import Table

    settings, facts, results = report["settings"], report["machine"], report["results"]
    names = list(results)
    where = facts["gpu"] if settings["device"].startswith("cuda") else f"{facts['cpu']}, {facts['threads']} threads"
    out.print(f"{where}, torch {facts['torch']}, {report['precision']}", soft_wrap=True)
    shape = f"{settings['steps']} steps of {settings['batch']} x {settings['context']} tokens of {', '.join(settings['folders'])}"
    out.print(f"size {settings['size']}, {shape}", soft_wrap=True)
    out.print(f"matching: {report['matching']['words']}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for head in [*names, *(f"{name}/{names[0]}" for name in names[1:])]:
        table.add_column(head, justify="right", no_wrap=True)
    for label, values, spread in _rows([results[name] for name in names]):
        table.add_row(label, *map(_figure, values), *(_ratio(value, values[0]) for value in values[1:]))
        if spread:
            table.add_row("  lowest-highest", *spread, style="dim")
    out.print(table)
    out.print(
        f"generation: batch 1, greedy, {settings['new_tokens']} tokens after a prompt of {settings['prompt_tokens']}; "
        f"medians of {settings['rounds']} interleaved rounds{', compiled' if settings['compile'] else ''}",
        soft_wrap=True,
    )


def _rows(results: list[dict[str, Any]]) -> list[tuple[str, list[Any], list[str] | None]]:
    """(label, a value for each architecture, the lowest and highest round). Short: three architectures have to fit 80 columns."""
    rows: list[tuple[str, list[Any], list[str] | None]] = []

    def timed(label: str, key: str, unit: float = 1.0) -> None:
        series = [result[key] for result in results]
        spread = [f"{_figure(s['min'] * unit)}-{_figure(s['max'] * unit)}" for s in series]
        rows.append((label, [s["median"] * unit for s in series], spread))

    def plain(label: str, values: list[Any]) -> None:
        rows.append((label, values, None))

    plain("total parameters", [r["parameters_total"] for r in results])
    plain("active parameters", [r["parameters_active"] for r in results])
    plain("forward MFLOP/token", [r["flops_per_token"] / 1e6 for r in results])
    timed("training tokens/s", "training_tokens_per_second")
    plain("training peak MB", [r["training_memory_bytes"] / 1e6 for r in results])
    timed("generation tokens/s", "generation_tokens_per_second")
    timed("first token ms", "first_token_seconds", 1e3)
    plain("state kB/sequence", [r["state_bytes"] / 1e3 for r in results])
    plain("last training loss", [r["train_losses"][-1] for r in results])
    plain("loss spikes", [r["loss_spikes"] for r in results])
    plain("validation loss", [r["validation"]["loss"] for r in results])
    plain("bits per byte", [r["validation"]["bits_per_byte"] for r in results])
    for language in results[0]["validation"]["by_language"]:
        plain(f"  {language}", [r["validation"]["by_language"][language]["bits_per_byte"] for r in results])
    return rows


def _figure(value: float | None) -> str:
    """Three to four digits: 1,186 or 42.3 or 0.0559."""
    return number(value, 4 if value is not None and abs(value) < 1 else 3)


def _ratio(value: float | None, base: float | None) -> str:
    return "-" if not value or not base else f"{value / base:.2f}x"
