"""`braingpt export`: a checkpoint without the parts that only training needs."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli import completion
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder or one of its checkpoints.", autocompletion=completion.runs
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must be new or empty.")],
    dtype: Annotated[
        str, typer.Option(help="Type of the matrices: float32, bfloat16 or float16; vectors stay float32.")
    ] = "float32",
    json_output: Json = False,
) -> None:
    """Write a folder for inference only.

    The folder has weights, recipe and tokenizer, so that braingpt.load opens it without the run.

    Examples:
        braingpt export runs/nano-v2 exported
        braingpt export runs/nano-v2 exported --dtype bfloat16
    """
    from braingpt.exchange.export import export_checkpoint

    result = export_checkpoint(run, out, dtype)
    if json_output:
        print_json(result)
        return
    before, after = result["bytes_before"], result["bytes_after"]
    print_line(
        console(),
        f"{result['source']} -> {out}: {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB "
        f"({dtype} matrices, no optimizer)",
    )
