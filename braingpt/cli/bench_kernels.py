"""`braingpt bench kernels`: each operation against its reference, its dense counterpart and the limit of the
machine.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.command import MACHINE
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, JsonFile, write_json
from braingpt.cli.options import Device, HtmlFile, check_output_files
from braingpt.cli.progress_bar import ProgressBar

if TYPE_CHECKING:
    from rich.console import Console

LEGEND = (
    "Operations run forward and backward, those of one token forward only. ms: one call with an empty cache. "
    "reference, dense: their time divided by this one. Upper row: medians. Lower row: lowest and highest of "
    "{rounds} interleaved rounds, and under 'of limit' the limit in ms."
)


def kernels(
    operations: Annotated[
        list[str] | None,
        typer.Argument(metavar="OPERATION", help='For example scan or "columns, one token". [default: all]'),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Use the shapes of this size's recipes.", autocompletion=completion.sizes)
    ] = "small",
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Windows. [default: 1 on a CPU, 16 on a GPU]", show_default=False),
    ] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens a window.")] = 1024,
    dtype: Annotated[
        str,
        typer.Option(help="Of the products: float32 or bfloat16; auto is bfloat16 where a GPU has it."),
    ] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads. [default: torch's choice]", show_default=False, rich_help_panel=MACHINE
        ),
    ] = None,
    device: Device = "auto",
    json_output: Json = False,
    json_file: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Time each operation: forward and backward, or a token of generation.

    A row that fails reports the reason, and the others continue.

    Examples:
        braingpt bench kernels
        braingpt bench kernels scan "columns, one token" --size tiny
    """
    from braingpt.bench.kernels.runner import resolve_kernel_settings, run_kernels
    from braingpt.bench.report.page import kernels_page
    from braingpt.utils.atomic_write import write_atomically

    check_output_files(json_file=json_file, html=html)
    settings = resolve_kernel_settings(
        operations or (),
        size,
        batch=batch,
        context=context,
        device=None if device == "auto" else device,
        dtype=dtype,
        threads=threads,
        rounds=rounds,
    )
    with ProgressBar(console(stderr=True)) as progress:
        report = run_kernels(settings, progress)
    write_json(report, json_output, json_file)
    if html:
        write_atomically(Path(html), kernels_page(report))
    _print_report(console(stderr=json_output), report)


def _print_report(out: "Console", report: dict[str, Any]) -> None:
    from rich.table import Table

    from braingpt.bench.report.formatting import kernel_failures, kernel_limits, kernel_row, where

    settings = report["settings"]
    out.print(f"{where(report)}, {settings['dtype']}", soft_wrap=True)
    out.print(kernel_limits(report), soft_wrap=True)
    out.print(f"shapes of {settings['size']}, {settings['batch']} x {settings['context']:,} tokens")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("", "ms", "reference", "dense", "of limit", ""):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in report["rows"]:
        upper, lower = zip(*kernel_row(row).values(), strict=True)
        table.add_row(*upper)
        table.add_row(f"  {lower[0]}", *lower[1:], style="dim")
    out.print(table)
    for line in kernel_failures(report):
        print_line(out, f"failed: {line}")
    out.print(LEGEND.format(rounds=settings["rounds"]))
