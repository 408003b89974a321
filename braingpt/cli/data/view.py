"""`braingpt data sample` and `braingpt data report`: documents of a prepared folder, and a page about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.command import OUTPUT
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import PreparedFolder, check_output_file

if TYPE_CHECKING:
    from rich.text import Text

    from braingpt.data.shards.documents import StoredDocument
    from braingpt.tokenizer import Tokenizer

# Backgrounds of neighbouring tokens, in turn.
COLOURS = tuple(f"black on color({number})" for number in (153, 194, 224, 229))
# What separates tokens where there is no colour.
BOUNDARY = "│"


def sample(
    folder: PreparedFolder,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of documents.")] = 3,
    language: Annotated[
        str | None, typer.Option(metavar="ko", help="Only documents in this language.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only documents from this source; `data info` lists the sources."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="train or validation. [default: both]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed chooses other documents.")] = 0,
    tokens: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tokens of each document, at most; 0 shows all.")
    ] = 400,
    json_output: Json = False,
) -> None:
    """Show random documents. Colours or lines mark their tokens.

    Examples:
        braingpt data sample data/sample
        braingpt data sample data/sample --count 2 --language ko --tokens 0
    """
    from braingpt.data.shards.documents import DocumentReader

    stored = DocumentReader(folder)
    documents = stored.draw(stored.streams(language, source, split), count, seed)
    if json_output:
        print_json([_as_json(document, stored.tokenizer, tokens) for document in documents])
        return
    terminal = console()
    colours = terminal.is_terminal and not terminal.no_color and terminal.color_system is not None
    for number, document in enumerate(documents):
        text = stored.tokenizer.decode(document.ids)
        place = f"{document.language}  {document.source}  {document.file} from token {document.start:,}"
        size = f"{len(document.ids):,} tokens, {len(text):,} characters"
        ratio = f"({len(text) / len(document.ids):.2f} per token)"
        cut = "" if document.whole else ", cut"
        print_line(terminal, ("\n" if number else "") + f"{place}: {size} {ratio}{cut}", style="bold")
        terminal.print(
            _marked_text(document, stored.tokenizer, tokens, colours), soft_wrap=not terminal.is_terminal
        )


def report(
    folder: PreparedFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page to write. [default: DIR-report.html beside DIR]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write one HTML page about a prepared folder.

    Counts, languages, lengths, dropped documents, tokens per character, examples.

    Examples:
        braingpt data report data/sample
        braingpt data report data/sample --out sample.html
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from braingpt.data.shards.documents import DocumentReader
    from braingpt.data.shards.report import figures, page
    from braingpt.utils.atomic_write import write_atomically

    stored = DocumentReader(folder)
    target = out or folder.resolve().parent / f"{folder.resolve().name}-report.html"
    check_output_file(target, "--out")
    terminal = console(stderr=json_output)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("counting tokens", total=sum(stream.tokens for stream in stored.manifest.streams))
        counted = stored.count(lambda tokens: bar.advance(task, tokens))
    facts = figures(stored, counted)
    write_atomically(target, page(stored, counted, facts), errors="replace")
    if json_output:
        print_json({"report": str(target), **facts})
        return
    ratio = f"{facts['characters'] / max(1, facts['tokens']):.2f} characters per token"
    size = f"{facts['documents']:,} documents, {facts['tokens']:,} tokens"
    print_line(terminal, f"{target}: {size}, {ratio}")


def _as_json(document: "StoredDocument", tokenizer: "Tokenizer", limit: int) -> dict[str, Any]:
    """The document for JSON, with at most `limit` tokens (0: all)."""
    from braingpt.tokenizer.pieces import readable

    ids = document.ids.tolist()
    shown = ids[: limit or None]
    return {
        **{key: getattr(document, key) for key in ("split", "language", "source", "file", "start", "whole")},
        "tokens": len(ids),
        "text": tokenizer.decode(shown),
        "ids": shown,
        "pieces": [readable(tokenizer.token(token, specials=True)) for token in shown],
    }


def _marked_text(document: "StoredDocument", tokenizer: "Tokenizer", limit: int, colours: bool) -> "Text":
    """The document with its tokens in alternating colours, or with a line between them.

    A character of several tokens is followed by their number.
    """
    from rich.text import Text

    from braingpt.tokenizer.pieces import escaped, pieces

    shown = Text()
    for number, piece in enumerate(pieces(tokenizer, document.ids[: limit or None])):
        text = "\n".join(map(escaped, piece.text.split("\n")))
        several = f"⟨{len(piece.ids)}⟩" if len(piece.ids) > 1 else ""
        if colours:
            style = "bold reverse" if piece.special else COLOURS[number % len(COLOURS)]
            shown.append(text.replace("\n", "↵\n"), style)
            shown.append(several, "dim")
        else:
            shown.append(
                (BOUNDARY if number and not shown.plain.endswith("\n") else "")
                + text.replace("\n", "↵\n")
                + several
            )
    if limit and len(document.ids) > limit:
        shown.append(
            f"\n... {len(document.ids) - limit:,} more tokens (--tokens 0 shows all)",
            "dim" if colours else "",
        )
    return shown
