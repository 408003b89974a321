"""`braingpt export`: a checkpoint without what only training needs."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.console import Json, console, print_json


def export(
    run: Annotated[Path, typer.Argument(help="A run folder or one checkpoint in it.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist, or be empty.")],
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16, for matrices; vectors stay float32.")
    ] = "float32",
    json: Json = False,
) -> None:
    """Write a folder for inference only.

    It holds weights, recipe and tokenizer, and braingpt.load opens it on its own.
    """
    from braingpt.checkpoint.listing import resolve
    from braingpt.exchange.export import export_checkpoint

    source = resolve(run)
    result = export_checkpoint(source, out, dtype)
    if json:
        print_json(result)
        return
    before, after = result["bytes_before"], result["bytes_after"]
    console().print(
        f"{source} -> {out}: {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB ({dtype} matrices, no optimizer)",
        soft_wrap=True,
    )
