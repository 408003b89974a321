"""`braingpt data join`: the parts of a preparation as one folder."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.command import OUTPUT
from braingpt.cli.console import console
from braingpt.cli.data.info import print_manifest
from braingpt.cli.json_output import Json, print_json


def join(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR", help="All parts of one preparation (`prepare --part`).", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The folder to write.", show_default=False, rich_help_panel=OUTPUT),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a prepared folder.", rich_help_panel=OUTPUT)
    ] = False,
    json_output: Json = False,
) -> None:
    """Join the parts of a preparation. Duplicates among them are dropped.

    Examples:
        braingpt data join data/part-1 data/part-2 --out data/korean
    """
    from rich.progress import Progress

    from braingpt.data.prepare.join import join as join_parts

    terminal = console(stderr=json_output)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("joining", total=1)
        manifest, _ = join_parts(
            folders, out, force=force, progress=lambda share: bar.update(task, completed=share)
        )
    if json_output:
        print_json({"folder": str(out), **manifest.model_dump()})
    else:
        print_manifest(terminal, out, manifest)
