"""`braingpt data info`: the content of a prepared folder, and the tables that other commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import PreparedFolder

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.data.shards.manifest import Manifest

# Parameters of a preparation that are hashes, long, or shown elsewhere.
HIDDEN = ("inputs", "quality", "quality_files", "corpus", "tokenizer")


def info(folder: PreparedFolder, json_output: Json = False) -> None:
    """Show the content of a prepared folder.

    Documents, tokens and bytes by language and source, and what each rule dropped.

    Examples:
        braingpt data info data/sample
    """
    from braingpt.data.shards.manifest import check_sizes, read_manifest

    manifest = read_manifest(folder)
    check_sizes(folder, manifest)
    if json_output:
        print_json({"folder": str(folder), **manifest.model_dump()})
        return
    terminal = console()
    print_manifest(terminal, folder, manifest)
    _print_filters(terminal, manifest)
    parameters = ", ".join(
        f"{key} {_value(value)}"
        for key, value in manifest.parameters.items()
        if value not in (None, [], False) and key not in HIDDEN
    )
    print_line(terminal, f"prepared {manifest.created} by braingpt {manifest.braingpt}; {parameters}")
    tokenizer = manifest.tokenizer
    print_line(
        terminal,
        f"tokenizer {tokenizer.fingerprint[:12]} with {tokenizer.vocab_size:,} tokens, "
        f"stored as {manifest.dtype}",
    )


def print_manifest(terminal: "Console", folder: Path, manifest: "Manifest") -> None:
    """Print documents and tokens by language and source, and how many documents each rule dropped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{folder} ({manifest.name})"), title_justify="left", box=None)
    for column in ("language", "source"):
        table.add_column(column, overflow="fold")
    for column in ("documents", "train tokens", "validation", "MB", "bytes/token"):
        table.add_column(column, justify="right", no_wrap=True)
    for language, source in dict.fromkeys((stream.language, stream.source) for stream in manifest.streams):
        streams = {
            stream.split: stream
            for stream in manifest.streams
            if (stream.language, stream.source) == (language, source)
        }
        tokens = {split: stream.tokens for split, stream in streams.items()}
        size = sum(stream.bytes for stream in streams.values())
        documents = sum(stream.documents for stream in streams.values())
        counts = (f"{documents:,}", f"{tokens.get('train', 0):,}", f"{tokens.get('validation', 0):,}")
        table.add_row(language, source, *counts, f"{size / 1e6:.2f}", f"{size / sum(tokens.values()):.2f}")
    terminal.print(table)
    dropped: dict[str, int] = {}
    for report in manifest.filters.values():
        for rule, facts in report["dropped"].items():
            dropped[rule] = dropped.get(rule, 0) + facts["documents"]
    most_first = sorted(dropped.items(), key=lambda item: -item[1])
    rules = ", ".join(f"{rule} {count:,}" for rule, count in most_first)
    terminal.print(f"dropped: {rules or 'nothing'}", markup=False)


def _print_filters(terminal: "Console", manifest: "Manifest") -> None:
    """Print what each rule dropped of each source, with an example."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Dropped", title_justify="left")
    for column in ("source", "rule", "documents", "example"):
        table.add_column(column, justify="right" if column == "documents" else "left", overflow="fold")
    for source, report in manifest.filters.items():
        for rule, facts in report["dropped"].items():
            table.add_row(source, rule, f"{facts['documents']:,}", Text(next(iter(facts["samples"]), "")))
    if table.row_count:
        terminal.print(table)


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
