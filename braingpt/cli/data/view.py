"""`braingpt data sample` and `braingpt data report`: look at what was prepared, document by document and as a
whole.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.console import Json, console, print_json

if TYPE_CHECKING:
    from rich.text import Text

    from braingpt.data.shards.documents import StoredDocument
    from braingpt.tokenizer import Tokenizer

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A prepared folder, such as data/korean.", show_default=False)
]
# of neighbouring tokens, in turn
COLOURS = tuple(f"black on color({number})" for number in (153, 194, 224, 229))
# between tokens where there is no colour
BOUNDARY = "│"


def sample(
    folder: Folder,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many documents.")] = 3,
    language: Annotated[str | None, typer.Option(metavar="ko", help="Only of this language.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only from this source; `data info` shows them.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train or validation; both if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other documents.")] = 0,
    tokens: Annotated[
        int, typer.Option(min=0, metavar="N", help="At most N tokens of each document; 0 for all.")
    ] = 400,
    json_output: Json = False,
) -> None:
    """Show documents drawn at random. Decoded, each token in a colour of its own or with a line between."""
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
        facts = f"{len(document.ids):,} tokens, {len(text):,} characters ({len(text) / len(document.ids):.2f} a token)"
        cut = "" if document.whole else ", cut"
        where = f"{document.language}  {document.source}  {document.file} from token {document.start:,}: {facts}{cut}"
        terminal.print(("\n" if number else "") + where, soft_wrap=True, markup=False, style="bold")
        terminal.print(
            _shown(document, stored.tokenizer, tokens, colours), soft_wrap=not terminal.is_terminal
        )


def report(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page to write; DIR-report.html beside DIR if not given."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write one HTML page about a prepared folder.

    Counts, languages, lengths, what was dropped, tokens per character, documents.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from braingpt.cli.options import check_target
    from braingpt.data.shards.documents import DocumentReader
    from braingpt.data.shards.report import figures, page
    from braingpt.utils.atomic_write import write_whole

    stored = DocumentReader(folder)
    target = out or folder.resolve().parent / f"{folder.resolve().name}-report.html"
    check_target(str(target), "--out")
    terminal = console(json_output)
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("counting tokens", total=sum(stream.tokens for stream in stored.manifest.streams))
        counted = stored.count(lambda tokens: bar.advance(task, tokens))
    facts = figures(stored, counted)
    write_whole(target, page(stored, counted, facts), errors="replace")
    if json_output:
        print_json({"report": str(target), **facts})
        return
    total = f"{facts['documents']:,} documents, {facts['tokens']:,} tokens, {facts['characters'] / max(1, facts['tokens']):.2f} characters a token"
    terminal.print(f"{target}: {total}", soft_wrap=True, markup=False)


def _as_json(document: "StoredDocument", tokenizer: "Tokenizer", limit: int) -> dict[str, Any]:
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


def _shown(document: "StoredDocument", tokenizer: "Tokenizer", limit: int, colours: bool) -> "Text":
    """The document, its tokens in alternating colours, or with a line between them.

    A character of several tokens says how many.
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
            f"\n... {len(document.ids) - limit:,} tokens more (--tokens 0 shows all)",
            "dim" if colours else "",
        )
    return shown
