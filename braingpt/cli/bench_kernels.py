"""`braingpt bench kernels`: each operation against its reference, its dense counterpart and the limit of the
machine.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import console
from braingpt.cli.options import Device, HtmlFile, JsonFile, check_target, deliver
from braingpt.cli.progress import Progress


def kernels(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPERATION]...", help='Such as scan or "columns, one token"; all by default.'
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="Take the shapes of this size's recipes.")] = "small",
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Windows. [default: 1 on a CPU, 16 on a GPU]", show_default=False),
    ] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens a window.")] = 1024,
    dtype: Annotated[
        str,
        typer.Option(help="Of the products: float32 or bfloat16; auto takes bfloat16 where a GPU has it."),
    ] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. [default: torch's choice]", show_default=False)
    ] = None,
    device: Device = "auto",
    json: JsonFile = None,
    html: HtmlFile = None,
) -> None:
    """Time each operation: forward and backward, or a token of generation.

    A row that fails says why and the others go on.
    """
    from braingpt.bench.kernels.runner import resolve_kernel_settings, run_kernels
    from braingpt.bench.report.page import kernels_page
    from braingpt.utils.atomic_write import write_whole

    check_target(json)
    check_target(html, "--html")
    place = None if device == "auto" else device
    settings = resolve_kernel_settings(
        operations or (),
        size,
        batch=batch,
        context=context,
        device=place,
        dtype=dtype,
        threads=threads,
        rounds=rounds,
    )
    with Progress(console(json_output=True)) as progress:
        report = run_kernels(settings, progress)
    deliver(report, json)
    if html:
        write_whole(Path(html), kernels_page(report))
    _print(console(json == "-"), report)


def _print(out: Any, report: dict[str, Any]) -> None:
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
        out.print(f"failed: {line}", soft_wrap=True, markup=False)
    out.print(
        "Operations are forward and backward, those of one token forward; ms a call that finds nothing in the cache. reference, dense: their time over this one. "
        f"Medians and, below, lowest and highest of {settings['rounds']} interleaved rounds; below the share of the limit the limit in ms.",
    )
