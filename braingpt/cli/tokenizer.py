"""`braingpt tokenizer`: train a vocabulary, measure what a text costs in tokens, show how a text is cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.console import Json, console, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a vocabulary, measure it, see how it cuts a text.")

Paths = Annotated[list[Path], typer.Argument(metavar="PATH", help="Text files (txt, md, jsonl, csv, tsv, parquet) or folders of them.")]
Column = Annotated[str | None, typer.Option("--column", help="Where a table keeps its text. Without it: found by name.")]
Folder = Annotated[Path | None, typer.Option("--tokenizer", help="A folder made by `tokenizer train`. Without it: the shipped vocabulary.")]


@app.command()
def train(
    paths: Paths,
    out: Annotated[Path, typer.Option("--out", help="The folder to write the tokenizer to.")],
    vocab: Annotated[int, typer.Option("--vocab", help="BPE entries, the 256 bytes included; 64 special tokens are added.")] = 16_384,
    column: Column = None,
    json_output: Json = False,
) -> None:
    """Train a vocabulary on your own texts."""
    import time

    from braingpt.tokenizer import training

    read = {"texts": 0, "characters": 0}
    skipped: list[str] = []

    def counted():
        for _, text in _texts(paths, column, skipped):
            read["texts"] += 1
            read["characters"] += len(text)
            yield text

    began = time.perf_counter()
    tokenizer = training.train(counted(), vocab)
    tokenizer.save(out)
    result = {"out": str(out), "entries": vocab, "vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint, **read}
    result |= {"skipped": len(skipped), "seconds": round(time.perf_counter() - began, 2)}
    if json_output:
        print_json(result)
    else:
        console().print(
            f"{out}: {vocab} entries and {tokenizer.vocab_size - vocab} specials from {read['texts']} texts "
            f"({read['characters']:,} characters) in {result['seconds']} s; fingerprint {tokenizer.fingerprint[:12]}",
            soft_wrap=True,
        )
        _tell_skipped(skipped)


@app.command()
def report(paths: Paths, column: Column = None, tokenizer: Folder = None, json_output: Json = False) -> None:
    """Characters and bytes per token, by path and language, beside other encodings whose rank files are at hand."""
    from rich.table import Table

    from braingpt.tokenizer import report as reports

    skipped: list[str] = []
    rows, absent = reports.measure(_texts(paths, column, skipped), _tokenizer(tokenizer))
    if json_output:
        print_json(reports.as_json(rows, absent) | {"skipped": len(skipped)})
        return
    table = Table("text", "language", title="characters per token (bytes per token)")
    names = list(rows[0].tokens) if rows else []
    for name in ("MB", *names):
        table.add_column(name, justify="right")
    for row in rows:
        cells = ("{1:.2f} ({0:.2f})".format(*row.per_token(name)) for name in names)
        table.add_row(Path(row.name).name, row.language or "other", f"{row.bytes / 1e6:.2f}", *cells)
    console().print(table)
    if absent:
        console().print(f"not compared, no rank file in TIKTOKEN_CACHE_DIR: {', '.join(absent)}", soft_wrap=True)
    _tell_skipped(skipped)


@app.command()
def encode(
    text: Annotated[str, typer.Argument(help="The text to cut into tokens.")],
    language: Annotated[str | None, typer.Option("--language", help="Put a marker first: ko en de fr es it, or auto, or split.")] = None,
    tokenizer: Folder = None,
    json_output: Json = False,
) -> None:
    """Show the tokens of a text with their ids; a token that is part of a character is shown as bytes."""
    from rich.table import Table
    from rich.text import Text

    chosen = _tokenizer(tokenizer)
    ids = chosen.encode(text, language)
    tokens = [{"id": token, "text": _readable(chosen.token(token, specials=True))} for token in ids]
    if json_output:
        size = len(text.encode())
        print_json({"text": text, "language": language, "characters": len(text), "bytes": size, "tokens": tokens})
        return
    table = Table("token")
    table.add_column("id", justify="right")
    for token in tokens:
        table.add_row(Text(token["text"]), str(token["id"]))
    console().print(table)
    console().print(f"{len(ids)} tokens, {len(text)} characters, {len(text.encode())} bytes")


def _texts(paths: list[Path], column: str | None, skipped: list[str]) -> Iterator[tuple[str, str]]:
    """(the path given, a text under it) for everything readable; what is broken inside a file goes to `skipped`."""
    from braingpt.data import files

    for path in paths:
        for file in files.find([path]):
            for document in files.read(file, column, lambda rule, sample: skipped.append(f"{rule}: {sample}")):
                yield str(path), document.text


def _tell_skipped(skipped: list[str]) -> None:
    if skipped:
        console().print(f"skipped {len(skipped)} broken rows, the first: {skipped[0]}", soft_wrap=True, markup=False)


def _tokenizer(folder: Path | None):
    from braingpt.tokenizer import Tokenizer

    return Tokenizer.load(folder) if folder else Tokenizer.default()


def _readable(token: bytes) -> str:
    """The token's text with spaces visible and controls escaped, or its bytes in hexadecimal when they are no whole characters."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return " ".join(f"<{byte:02X}>" for byte in token)
    return "".join("·" if char == " " else char if char.isprintable() else repr(char)[1:-1] for char in text)
