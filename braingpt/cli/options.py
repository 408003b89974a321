"""What the reporting commands share: `--json FILE`, a run opened by name, text from a file or a pipe."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.utils.formatting import number as number
from braingpt.utils.formatting import percent as percent

JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON to FILE; - is standard output."),
]
HtmlFile = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Write one HTML page with plots to FILE.")
]
Run = Annotated[
    Path | None,
    typer.Argument(
        help="A run folder or one checkpoint in it; by default the newest run.", show_default=False
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.")]

Dtype = Annotated[
    str, typer.Option(help="float32, or int8: weights in a quarter of the bytes, slightly rounded.")
]
Effort = Annotated[
    float | None,
    typer.Option(
        help="Mean share of the layers a token goes through. [default: the one trained for]",
        show_default=False,
    ),
]
ExitThreshold = Annotated[
    float | None,
    typer.Option(
        help="How sure v1 must be of the next token to leave out the layers that are left; `calibrate` finds it.",
        show_default=False,
    ),
]

DTYPES = ("float32", "int8")


def deliver(value: Any, target: str | None) -> None:
    """`value` as JSON to the file `target`, to standard output for "-", nowhere for None.

    The file is whole or not there.
    """
    if target is None:
        return
    from braingpt.cli.console import print_json

    if target == "-":
        print_json(value)
        return
    from braingpt.utils.atomic_write import write_whole

    check_target(target)
    write_whole(Path(target), json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def check_target(target: str | Path | None, option: str = "--json") -> None:
    """UserError when the file that `option` names cannot be written; to be called before the work, not after
    it.
    """
    from braingpt.errors import UserError

    if target is None or (target == "-" and option == "--json"):
        return
    path = Path(target)
    if path.is_dir():
        raise UserError(
            f"{option} {path} is a folder; name a file{', or - for standard output' if option == '--json' else ''}"
        )
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write in {path.parent}")


def check_out(folder: Path, option: str = "--out") -> None:
    """UserError when the folder that `option` names cannot be made or written to; to be called before the
    work, not after it.
    """
    from braingpt.errors import UserError

    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{option} {folder}: {there} is a file; name another folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"{option} {folder}: no permission to write in {there}")


def open_run(
    run: Path | None,
    device: str,
    say: Any,
    dtype: str = "float32",
    effort: float | None = None,
    exit_threshold: float | None = None,
) -> tuple[Any, Any, Any, dict[str, Any], Path]:
    """(model, tokenizer, recipe, state, folder) of RUN.

    `say`: the console that names the checkpoint taken when RUN is None.
    """
    from braingpt.checkpoint.checkpoint import load_model
    from braingpt.checkpoint.listing import resolve
    from braingpt.device.device import pick_device
    from braingpt.errors import UserError, did_you_mean

    if dtype not in DTYPES:
        raise UserError(f"unknown dtype '{dtype}'{did_you_mean(dtype, DTYPES)}")
    place = pick_device(None if device == "auto" else device)
    folder = resolve(run)
    if run is None:
        say.print(f"taking {folder}", soft_wrap=True, markup=False)
    model, tokenizer, recipe, state = load_model(folder, place)
    model.set_effort(effort)
    if exit_threshold is not None:
        model.set_exit_threshold(exit_threshold)
    if dtype == "int8":
        model.to_int8()
    return model, tokenizer, recipe, state, folder


def read_text(source: str | Path) -> str:
    """UTF-8 text of the file `source`, or of standard input for "-".

    Raises UserError when it is not there or not UTF-8.
    """
    from braingpt.errors import UserError

    name = "standard input" if str(source) == "-" else str(source)
    try:
        if str(source) != "-":
            _check_size(Path(source))
        raw = sys.stdin.buffer.read() if str(source) == "-" else Path(source).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no text file {name}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text (byte {error.start}); convert it first") from None


def _check_size(path: Path) -> None:
    """UserError for a text that memory cannot hold with its tokens: about 16 bytes for each of its own."""
    import torch

    from braingpt.device.free_memory import free_memory
    from braingpt.errors import UserError

    size, free = path.stat().st_size, free_memory(torch.device("cpu"))
    if 16 * size > free:
        raise UserError(
            f"{path} is {size / 1e9:,.1f} GB of text, more than {free / 1e9:,.1f} GB of free memory can take at once; "
            f"prepare it and read it from there: braingpt data prepare text {path} --out data/{path.stem}, then --data data/{path.stem}"
        )


@contextmanager
def fitting(context: int) -> Iterator[None]:
    """Turns an allocator's giving up inside the `with` into a UserError that says what to do: windows of
    `context` tokens were too long.
    """
    from braingpt.device.device import is_out_of_memory
    from braingpt.errors import UserError

    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"windows of {context:,} tokens need more memory than there is; take a smaller --context"
        ) from None


def show(piece: str) -> None:
    """A piece of text on standard output at once, whatever the terminal's encoding can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(piece.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
