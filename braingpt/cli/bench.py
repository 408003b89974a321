"""`braingpt bench`: architectures side by side, measured on this machine with real data."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.bench_kernels import kernels
from braingpt.cli.command import ALIKE, MACHINE, MEASUREMENTS, OUTPUT, TRAINING, Group
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, JsonFile, ReportCommand, write_json
from braingpt.cli.options import HtmlFile, check_output_files, check_output_folder
from braingpt.cli.progress_bar import ProgressBar

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.bench.report.sections import Section

# Contenders in one table: as many as fit 80 characters.
COLUMNS = 4


class _BenchGroup(Group):
    """`bench v1 v2` is short for `bench compare v1 v2`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Put `compare` in front, unless a command or the help is asked for, or a command mistyped."""
        first = args[0] if args else "--help"
        known = [*self.commands, *ctx.help_option_names]
        mistyped = difflib.get_close_matches(first, self.commands, cutoff=ALIKE)
        return super().parse_args(ctx, args if first in known or mistyped else ["compare", *args])

    def shell_complete(self, ctx: typer.Context, incomplete: str) -> list[Any]:
        """Commands, and the architectures of `bench v1 v2`."""
        names = self.commands["compare"].params[0].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *names]


app = typer.Typer(
    cls=_BenchGroup,
    help="""Compare architectures, or time single operations.

    `braingpt bench v1 v2` is short for `braingpt bench compare v1 v2`.

    Examples:
        braingpt bench v1 v2 dense
        braingpt bench kernels
    """,
    no_args_is_help=True,
)
app.command(cls=ReportCommand)(kernels)


@app.command(cls=ReportCommand)
def compare(
    architectures: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCHITECTURE",
            help="v1, v2, dense, dense-active (with v2's active parameters). Ratios are to the first.",
            autocompletion=completion.architectures,
        ),
    ],
    size: Annotated[
        str,
        typer.Option(
            help="The size of the recipes: nano, tiny, small, ...",
            rich_help_panel=TRAINING,
            autocompletion=completion.sizes,
        ),
    ] = "nano",
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="A prepared data folder, may be repeated. [default: the recipe's]",
            rich_help_panel=TRAINING,
            autocompletion=completion.prepared_folders,
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another library's model of the same size, may be repeated: gpt2-hf, mamba2-hf, litgpt.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Training steps of each model. [default: by size and device]",
            show_default=False,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training tokens of each model, instead of --steps.",
            show_default=False,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100_000,
            help="Training time of each model at equal time; 0 skips. [default: the slowest's for --steps]",
            show_default=False,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at equal tokens and at equal time. [default: 1]",
            show_default=False,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens a window. [default: the recipe's]",
            show_default=False,
            min=2,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows a step. [default: the recipe's, reduced on a CPU]", min=1, rich_help_panel=TRAINING
        ),
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Tokens read before generation. [default: 512,2048]",
            show_default=False,
            rich_help_panel=MEASUREMENTS,
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Rows generated at once. [default: 1,8]",
            show_default=False,
            rich_help_panel=MEASUREMENTS,
        ),
    ] = None,
    new_tokens: Annotated[
        int, typer.Option(help="Tokens generated in each round.", min=2, rich_help_panel=MEASUREMENTS)
    ] = 32,
    rounds: Annotated[
        int, typer.Option(help="Interleaved rounds of each measurement.", min=1, rich_help_panel=MEASUREMENTS)
    ] = 5,
    windows: Annotated[
        int, typer.Option(help="Validation windows for each language.", min=1, rich_help_panel=MEASUREMENTS)
    ] = 32,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Contexts up to 32768 and three seeds, unless set otherwise.",
            rich_help_panel=MEASUREMENTS,
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile training and generation of all models; takes some minutes more.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a training or data value of all recipes, for example `train.lr=1e-3`.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads. [default: torch's choice]", show_default=False, min=1, rich_help_panel=MACHINE
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE, autocompletion=completion.devices
        ),
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep results, page and trained models here; the same command continues an interrupted run.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_output: Json = False,
    json_file: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Compare architectures on real text.

    Speed, memory, learning, stability, generation, few-shot. `bench kernels` times single operations.

    Examples:
        braingpt bench v1 v2 dense
        braingpt bench v2 dense --size tiny --minutes 5 --out runs/bench
    """
    from braingpt.bench.report.page import architectures_page
    from braingpt.bench.results import FILE
    from braingpt.bench.runner import run_bench
    from braingpt.bench.settings import BATCHES, CONTEXTS, FULL, resolve_settings
    from braingpt.utils.atomic_write import write_atomically

    check_output_files(json_file=json_file, html=html)
    if out is not None:
        check_output_folder(out)
    full_settings = FULL if full else {}
    settings = resolve_settings(
        architectures,
        size,
        data or (),
        steps=steps,
        tokens=tokens,
        context=context,
        batch=batch,
        threads=threads,
        device=None if device == "auto" else device,
        peers=tuple(peer or ()),
        minutes=minutes,
        seeds=seeds or full_settings.get("seeds", 1),
        rounds=rounds,
        contexts=_numbers(contexts, "--contexts", 2) or full_settings.get("contexts", CONTEXTS),
        batches=_numbers(batches, "--batches", 1) or BATCHES,
        new_tokens=new_tokens,
        windows=windows,
        compile=compiled,
        changes=tuple(changes or ()),
    )
    messages = console(stderr=True)
    if out is not None and (out / FILE).is_file():
        print_line(messages, f"continuing {out}; finished measurements are not repeated")
    try:
        with ProgressBar(messages) as progress:
            report = run_bench(settings, progress, out)
    except KeyboardInterrupt:
        if out is not None:
            print_line(messages, f"finished measurements are in {out}; the same command continues from there")
        raise
    write_json(report, json_output, json_file)
    pages = [Path(html)] if html else []
    for path in [*pages, *([out / "report.html"] if out else [])]:
        write_atomically(path, architectures_page(report))
    _print_report(console(stderr=json_output), report)


def _numbers(text: str | None, option: str, least: int) -> tuple[int, ...]:
    """`512,2048` as numbers; UserError unless they are different whole numbers of at least `least`."""
    from braingpt.errors import UserError

    if text is None:
        return ()
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{option} {text}: give whole numbers separated by commas, for example 512,2048"
        ) from None
    if min(numbers) < least or len(set(numbers)) < len(numbers):
        raise UserError(f"{option} {text}: give different numbers of at least {least}")
    return numbers


def _print_report(out: "Console", report: dict[str, Any]) -> None:
    from braingpt.bench.report.sections import failures, header, sections

    for line in header(report):
        out.print(line, markup=False)
    for section in sections(report):
        _print_section(out, section)
    for line in failures(report):
        print_line(out, f"failed: {line}")
    _print_claims(out, report)


def _print_section(out: "Console", section: "Section") -> None:
    from rich.table import Table

    out.print()
    out.print(section.title, markup=False, style="bold")
    if section.note:
        out.print(section.note, markup=False)
    for first in range(0, len(section.names), COLUMNS):
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True, min_width=21)
        for name in section.names[first : first + COLUMNS]:
            table.add_column(name, justify="right", no_wrap=True, min_width=10)
        for label, cells, below in section.rows:
            table.add_row(
                f"  {label}" if below else label,
                *cells[first : first + COLUMNS],
                style="dim" if below else None,
            )
        out.print(table)


def _print_claims(out: "Console", report: dict[str, Any]) -> None:
    from rich.table import Table

    from braingpt.bench.report.sections import verdict

    out.print()
    out.print("Claims of the earlier work", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for ratio in (3, None, 5):
        table.add_column(ratio=ratio, no_wrap=ratio is None)
    for claim in report["claims"]:
        table.add_row(claim["claim"], verdict(claim), claim["measured"])
    out.print(table)
