"""Common parts of the commands: options, a run opened by name, text from a file or a pipe, and checks of
output files and folders.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from braingpt.cli import completion
from braingpt.cli.command import MACHINE, MODEL, OUTPUT, SAMPLING, TEXT

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.model.lm import LanguageModel
    from braingpt.recipes import Recipe
    from braingpt.tokenizer import Tokenizer

HtmlFile = Annotated[
    str | None,
    typer.Option(
        "--html", metavar="FILE", help="Write one HTML page with plots to FILE.", rich_help_panel=OUTPUT
    ),
]
Run = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="A run folder or one of its checkpoints. [default: the newest run]",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
PreparedFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="A prepared folder, such as data/korean.",
        show_default=False,
        autocompletion=completion.prepared_folders,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N; auto uses a GPU if there is one.",
        rich_help_panel=MACHINE,
        autocompletion=completion.devices,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, or int8: weights in a quarter of the bytes, slightly rounded.",
        rich_help_panel=MODEL,
        autocompletion=completion.dtypes,
    ),
]
Effort = Annotated[
    float | None,
    typer.Option(
        help="Mean share of the layers that a token passes through. [default: the share set in training]",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
ExitThreshold = Annotated[
    float | None,
    typer.Option(
        help="How sure v1 must be of the next token to skip the remaining layers; `calibrate` finds a value.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]

Language = Annotated[
    str | None,
    typer.Option(
        "--lang",
        help="Language of the text: ko, en, ... [default: detected; ko without a prompt]",
        show_default=False,
        rich_help_panel=TEXT,
        autocompletion=completion.languages,
    ),
]
MaxNewTokens = Annotated[int, typer.Option(help="Tokens to generate, at most.", rich_help_panel=TEXT)]
Temperature = Annotated[
    float, typer.Option(help="0 always chooses the most likely token.", rich_help_panel=SAMPLING)
]
TopK = Annotated[
    int | None,
    typer.Option(help="Choose among the K most likely tokens.", show_default=False, rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Choose among the most likely tokens that together have probability P.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        help="Choose among the tokens with at least P times the probability of the most likely one.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        help="Above 1: tokens of the prompt and the text are chosen less often.", rich_help_panel=SAMPLING
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="The same seed gives the same text.", show_default=False, rich_help_panel=SAMPLING),
]

# Bytes of memory that a text and its tokens need for each byte of the text.
MEMORY_PER_TEXT_BYTE = 16


class OpenRun(NamedTuple):
    """A checkpoint opened for use; `state` is the content of its state.json."""

    model: "LanguageModel"
    tokenizer: "Tokenizer"
    recipe: "Recipe"
    state: dict[str, Any]
    folder: Path


def open_run(
    run: Path | None,
    device: str,
    messages: "Console",
    dtype: str = "float32",
    effort: float | None = None,
    exit_threshold: float | None = None,
) -> OpenRun:
    """Open the checkpoint that RUN names, or the newest one, whose name is printed to `messages`.

    Args:
        run: A run folder, one of its checkpoints, or None for the newest run.
        device: auto, cpu, cuda or cuda:N.
        messages: The console for people.
        dtype: float32 or int8.
        effort: Mean share of the layers that a token passes through; None as in training.
        exit_threshold: How sure v1 must be of the next token to skip the remaining layers.

    Raises:
        UserError: If there is no such checkpoint, or the model does not have what an option sets.
        Failure: If the checkpoint is damaged.
    """
    from braingpt.checkpoint.load import load_run
    from braingpt.device.core_sharing import share_cores
    from braingpt.device.device import pick_device
    from braingpt.errors import UserError, did_you_mean

    if dtype not in completion.DTYPES:
        raise UserError(f"unknown dtype '{dtype}'{did_you_mean(dtype, completion.DTYPES)}")
    place = pick_device(None if device == "auto" else device)
    if place.type == "cpu":
        share_cores()
    model, tokenizer, recipe, state, folder = load_run(run, place)
    if run is None:
        messages.print(f"using {folder}", soft_wrap=True, markup=False)
    model.set_effort(effort)
    if exit_threshold is not None:
        model.set_exit_threshold(exit_threshold)
    if dtype == "int8":
        model.to_int8()
    return OpenRun(model, tokenizer, recipe, state, folder)


def check_output_file(path: Path, option: str) -> None:
    """Check, before the work begins, that the file that `option` names can be written.

    Raises:
        UserError: If it cannot.
    """
    from braingpt.errors import UserError
    from braingpt.utils.atomic_write import check_target

    if str(path) == "-" and option == "--json-file":
        raise UserError("--json-file needs the name of a file; --json prints on standard output")
    check_target(path, option)


def check_output_files(**files: Path | str | None) -> None:
    """Check the files of several options, named as their parameters: json_file is `--json-file`.

    Raises:
        UserError: If one of them cannot be written.
    """
    for name, file in files.items():
        if file is not None:
            check_output_file(Path(file), f"--{name.replace('_', '-')}")


def check_output_folder(folder: Path, option: str = "--out") -> None:
    """Check, before the work begins, that the folder that `option` names can be made and written to.

    Raises:
        UserError: If it cannot.
    """
    from braingpt.utils.paths import check_folder

    check_folder(folder, option)


def read_text(source: str | Path) -> str:
    """The UTF-8 text of the file `source`, or of standard input for "-".

    Raises:
        UserError: If there is no such file, or its bytes are not UTF-8.
    """
    from braingpt.errors import UserError

    name = "standard input" if str(source) == "-" else str(source)
    try:
        if str(source) != "-":
            _check_fits_memory(Path(source))
        raw = sys.stdin.buffer.read() if str(source) == "-" else Path(source).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no text file {name}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text (byte {error.start}); convert it first") from None


def _check_fits_memory(path: Path) -> None:
    """UserError for a text that does not fit into memory together with its tokens."""
    import torch

    from braingpt.device.free_memory import free_memory
    from braingpt.errors import UserError
    from braingpt.utils.paths import shell_word

    size, free = path.stat().st_size, free_memory(torch.device("cpu"))
    if MEMORY_PER_TEXT_BYTE * size > free:
        out = shell_word(f"data/{path.stem}")
        raise UserError(
            f"{path} has {size / 1e9:,.1f} GB of text, too much for {free / 1e9:,.1f} GB of free memory; "
            f"prepare it first: braingpt data prepare text {shell_word(path)} --out {out}, "
            f"then use --data {out}"
        )


@contextmanager
def explain_out_of_memory(context: int) -> Iterator[None]:
    """Raise a UserError that names --context where windows of `context` tokens do not fit into memory."""
    from braingpt.device.device import is_out_of_memory
    from braingpt.errors import UserError

    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"windows of {context:,} tokens do not fit into memory; use a smaller --context"
        ) from None
