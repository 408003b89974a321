"""`braingpt tokenizer`: train a vocabulary, add a language, count tokens of texts, show those of one text."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from braingpt.cli import completion
from braingpt.cli.cleaning import clean_input
from braingpt.cli.command import FILES, OUTPUT, Command, Group
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import check_output_folder
from braingpt.cli.own_texts import OwnTexts
from braingpt.utils.formatting import percent

if TYPE_CHECKING:
    from rich.table import Table

    from braingpt.data.sources.read_options import ReadOptions
    from braingpt.tokenizer.report import ReportRow

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="""Train vocabularies, add languages, count tokens.

    Examples:
        braingpt tokenizer encode "안녕하세요" --language ko
        braingpt tokenizer train notes --out tokenizers/notes --vocab 4096
    """,
)

Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH", help="Text files (txt, md, jsonl, csv, tsv, parquet) or folders of them."),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        help="The text column of tables. [default: found by name]",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="How the files are read: text, jsonl, json, csv, tsv or parquet. [default: by content]",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of the files: utf-8, utf-16, cp949, ... [default: by content]",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        help="The character between columns of tables, or tab. [default: by content]",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Chosen = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="gpt2, cl100k_base, o200k_base, or a tokenizer folder. [default: the shipped vocabulary]",
        show_default=False,
        autocompletion=completion.tokenizers,
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The folder for the tokenizer.", rich_help_panel=OUTPUT)]


@app.command(cls=Command)
def train(
    paths: Paths,
    out: Out,
    vocab: Annotated[
        int,
        typer.Option("--vocab", help="BPE entries, including the 256 bytes; 64 special tokens are added."),
    ] = 16_384,
    column: Column = None,
    format: Format = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    json_output: Json = False,
) -> None:
    """Train a vocabulary on your own texts.

    Examples:
        braingpt tokenizer train notes --out tokenizers/notes --vocab 4096
    """
    import time

    from braingpt.tokenizer import training

    check_output_folder(out)
    read = {"texts": 0, "characters": 0}
    texts = OwnTexts(paths, column, _options(format, encoding, delimiter), json_output)

    def counted() -> Iterator[str]:
        for _, text in texts:
            read["texts"] += 1
            read["characters"] += len(text)
            yield text

    began = time.perf_counter()
    tokenizer = training.train(counted(), vocab)
    tokenizer.save(out)
    result = {
        "out": str(out),
        "entries": vocab,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        **read,
        "cleaned": texts.changes.as_dict(),
        "skipped": texts.skipped,
        "seconds": round(time.perf_counter() - began, 2),
    }
    if json_output:
        print_json(result)
    else:
        console().print(
            f"{out}: {vocab} entries and {tokenizer.vocab_size - vocab} special tokens from "
            f"{read['texts']} texts ({read['characters']:,} characters) in {result['seconds']} s; "
            f"fingerprint {tokenizer.fingerprint[:12]}",
            soft_wrap=True,
        )
        texts.print_skipped()


@app.command("add-language", cls=Command)
def add_language(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The language's code, such as pt.")],
    paths: Paths,
    out: Out,
    entries: Annotated[
        int, typer.Option("--entries", help="BPE entries to add for the language, at most.")
    ] = 2048,
    tokenizer: Chosen = None,
    column: Column = None,
    format: Format = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    json_output: Json = False,
) -> None:
    """Add a language to a vocabulary, learned from your texts. Old ids keep their meaning.

    Examples:
        braingpt tokenizer add-language pt books --out tokenizers/pt
    """
    from contextlib import nullcontext
    from functools import partial

    from braingpt.tokenizer import add_language
    from braingpt.tokenizer.named import open_tokenizer
    from braingpt.utils.file_lock import file_lock

    check_output_folder(out)
    texts = OwnTexts(paths, column, _options(format, encoding, delimiter), json_output)
    # Another process that adds a language to the same folder would undo this, or be undone.
    same = tokenizer is not None and Path(tokenizer).is_dir() and out.is_dir() and out.samefile(tokenizer)
    note = partial(print_line, console(stderr=True))
    with file_lock(out, note) if same else nullcontext():
        old = open_tokenizer(tokenizer)
        grown = add_language.add_language(old, code, (text for _, text in texts), entries)
        new = grown.tokenizer
        new.save(out)
    added = len(new.added) - len(old.added)
    if json_output:
        facts = {
            "out": str(out),
            "language": code,
            "marker": new.markers[code],
            "entries": added,
            "vocab_size": new.vocab_size,
        }
        facts |= {
            "fingerprint": new.fingerprint,
            "former_fingerprint": old.fingerprint,
            "detectable": grown.detectable,
        }
        facts |= {
            "characters": grown.characters,
            "tokens_before": grown.before,
            "tokens_after": grown.after,
            "cleaned": texts.changes.as_dict(),
            "skipped": texts.skipped,
        }
        print_json(facts)
        return
    before, after = grown.characters / max(1, grown.before), grown.characters / max(1, grown.after)
    lines = [
        f"{out}: <|{code}|> is token {new.markers[code]}, {added} entries added; "
        f"vocabulary of {new.vocab_size:,}, fingerprint {new.fingerprint[:12]}",
        f"held-out texts in '{code}': {grown.before:,} tokens before, {grown.after:,} now "
        f"({before:.2f} and {after:.2f} characters per token)",
        "Data prepared with the former vocabulary must be prepared again; old ids decode as before.",
    ]
    if not grown.detectable:
        lines.append(
            f"The language detector does not know '{code}'; name the language with --lang or --language."
        )
    for line in lines:
        print_line(console(), line)
    texts.print_skipped()


@app.command(cls=Command)
def report(
    paths: Paths,
    column: Column = None,
    format: Format = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    tokenizer: Chosen = None,
    json_output: Json = False,
) -> None:
    """Count the tokens of texts.

    By path and language, beside other vocabularies whose rank files are available.

    Examples:
        braingpt tokenizer report notes
        braingpt tokenizer report notes --tokenizer tokenizers/notes
    """
    from braingpt.tokenizer import report as reports
    from braingpt.tokenizer.named import NAMED, open_tokenizer

    texts = OwnTexts(paths, column, _options(format, encoding, delimiter), json_output)
    name = tokenizer if tokenizer in NAMED else "braingpt" if tokenizer is None else Path(tokenizer).name
    rows, absent = reports.measure(iter(texts), open_tokenizer(tokenizer), name)
    if json_output:
        print_json(
            reports.as_json(rows, absent) | {"cleaned": texts.changes.as_dict(), "skipped": texts.skipped}
        )
        return
    width = max(map(len, rows[0].costs))
    # Each text has a heading and a table of its own, because one table for all does not fit 80 columns.
    for number, row in enumerate(rows):
        heading = f"{Path(row.name).name}, {row.language or 'other'}, {row.bytes / 1e6:.2f} MB"
        console().print(("\n" if number else "") + heading, style="bold", soft_wrap=True, markup=False)
        console().print(_table(row, width))
    shares = {encoding: reports.hangul_alone(cost.tokenizer) for encoding, cost in rows[0].costs.items()}
    listed = ", ".join(
        f"{encoding} {100 * share['common']:.1f} ({100 * share['all']:.1f})"
        for encoding, share in shares.items()
    )
    console().print(
        f"\nHangul syllables that are a single token, % of the 2,350 common (of all 11,172): {listed}",
        markup=False,
    )
    if absent:
        console().print(
            f"not compared, no rank file in TIKTOKEN_CACHE_DIR: {', '.join(absent)}", soft_wrap=True
        )
    texts.print_skipped()


@app.command(cls=Command)
def encode(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to encode.")],
    language: Annotated[
        str | None,
        typer.Option("--language", help="Begin with a language marker: a code such as ko, auto or split."),
    ] = None,
    tokenizer: Chosen = None,
    json_output: Json = False,
) -> None:
    """Show the tokens of a text with their ids. Parts of characters are shown as bytes.

    Examples:
        braingpt tokenizer encode "안녕하세요"
        braingpt tokenizer encode "Hello" --language en --tokenizer gpt2
    """
    from rich.table import Table
    from rich.text import Text

    from braingpt.tokenizer.named import open_tokenizer
    from braingpt.tokenizer.pieces import readable

    chosen = open_tokenizer(tokenizer)
    text, changes = clean_input(text, "the text was", console(stderr=True))
    ids = chosen.encode(text, language)
    tokens = [{"id": token, "text": readable(chosen.token(token, specials=True))} for token in ids]
    if json_output:
        print_json(
            {
                "text": text,
                "cleaned": changes.as_dict(),
                "language": language,
                "characters": len(text),
                "bytes": len(text.encode()),
                "tokens": tokens,
            }
        )
        return
    table = Table("token")
    table.add_column("id", justify="right")
    for token in tokens:
        table.add_row(Text(token["text"]), str(token["id"]))
    console().print(table)
    console().print(f"{len(ids)} tokens, {len(text)} characters, {len(text.encode())} bytes")


def _table(row: "ReportRow", width: int) -> "Table":
    """The costs of one row of the report in each encoding, whose names take `width` cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("vocabulary", min_width=width, max_width=20, overflow="fold")
    for heading in (
        "characters/\ntoken",
        "bytes/\ntoken",
        "tokens/\nword",
        "syllables\nin one token",
        "byte\nfallback",
        "MB/s",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for encoding in row.costs:
        figures = row.figures(encoding)
        cells = [
            f"{figures[key]:.2f}" if figures[key] is not None else "-"
            for key in ("characters_per_token", "bytes_per_token", "tokens_per_word")
        ]
        cells += [percent(figures[key]) for key in ("whole_syllables", "byte_fallback")]
        speed = figures["mb_per_second"]
        table.add_row(encoding, *cells, f"{speed:.1f}" if speed else "-")
    return table


def _options(format: str | None, encoding: str | None, delimiter: str | None) -> "ReadOptions":
    from braingpt.data.sources.read_options import checked_options

    return checked_options(format, encoding, delimiter)
