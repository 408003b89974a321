"""`braingpt data prepare`: a corpus read, filtered, tokenized and written as shards."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from braingpt.cli import completion
from braingpt.cli.command import FILES, HUB, OUTPUT, SELECTION, WORK
from braingpt.cli.console import console, print_line
from braingpt.cli.data.info import print_manifest
from braingpt.cli.data.list import PREPARED
from braingpt.cli.json_output import Json, print_json
from braingpt.utils.formatting import duration
from braingpt.utils.time_left import TimeLeft

if TYPE_CHECKING:
    from braingpt.data.prepare.pipeline import Prepared, Progress, Request
    from braingpt.tokenizer import Tokenizer

# Seconds between two lines of progress without a terminal.
LOG_SECONDS = 30
UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def prepare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The corpus; `braingpt data list` lists all. 'text' reads your own files.",
            autocompletion=completion.corpora,
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Files and folders for 'text', or the dataset ID for 'hub'.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Read copies in the hub's layout under DIR instead of the hub.",
            rich_help_panel=HUB,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder to write. [default: data/NAME]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    languages: Annotated[
        str | None, typer.Option(metavar="ko,en", help="Only these languages.", rich_help_panel=SELECTION)
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Documents of each source and language, at most.", rich_help_panel=SELECTION
        ),
    ] = None,
    max_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Tokens of each source and language, at most: a number, 500k, 20M or 1B.",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The text column of your tables or of 'hub'. [default: found by name]",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How your files are read: text, jsonl, json, csv, tsv or parquet. [default: by content]",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoding of your files: utf-8, utf-16, cp949, ... [default: by content]",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="The character between columns of your tables, or tab. [default: by content]",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Branch, tag or commit on the hub. [default: main]",
            show_default=False,
            rich_help_panel=HUB,
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME", help="Configuration of a hub dataset.", rich_help_panel=HUB)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Split of 'hub'. [default: train]", show_default=False, rich_help_panel=HUB
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Share held out for validation. [default: 0.01; 0.05 for small corpora]",
            show_default=False,
            rich_help_panel=SELECTION,
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Quality rules that replace defaults (YAML, see the data guide).",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="2/8",
            help="Only part 2 of 8 of the files, for several machines; see `join`.",
            rich_help_panel=WORK,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Worker processes. [default: one per processor]",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A tokenizer folder, gpt2, cl100k_base or o200k_base. [default: the shipped vocabulary]",
            show_default=False,
            autocompletion=completion.tokenizers,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a prepared folder.", rich_help_panel=OUTPUT)
    ] = False,
    json_output: Json = False,
) -> None:
    """Prepare a corpus: read, filter, deduplicate, tokenize, write.

    Examples:
        braingpt data prepare sample
        braingpt data prepare text notes --out data/notes
        braingpt data prepare korean --max-tokens 20M
    """
    from braingpt.data.prepare.pipeline import Request
    from braingpt.data.prepare.worker_pool import processors
    from braingpt.tokenizer.named import open_tokenizer

    request = Request(
        name=name,
        out=out or PREPARED / ("-".join(paths[0].parts).lower() if name == "hub" and paths else name),
        paths=paths or [],
        source=source,
        languages=[language.strip() for language in languages.split(",") if language.strip()]
        if languages is not None
        else None,
        max_samples=max_samples,
        max_tokens=_parse_count(max_tokens) if max_tokens else None,
        column=column,
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        revision=revision,
        config=config,
        split=split,
        validation=validation,
        quality=quality,
        part=_parse_part(part) if part else None,
        force=force,
        workers=workers if workers is not None else processors(),
    )
    prepared = _run_with_progress(request, open_tokenizer(tokenizer), json_output)
    if json_output:
        facts = {
            "folder": str(request.out),
            "fresh": prepared.fresh,
            "seconds": round(prepared.seconds, 2),
            "notes": prepared.notes,
        }
        print_json({**facts, **prepared.manifest.model_dump()})
        return
    terminal = console()
    if not prepared.fresh:
        print_line(
            terminal, f"{request.out} is already prepared with the same parameters; --force prepares it again"
        )
    print_manifest(terminal, request.out, prepared.manifest)
    if prepared.fresh:
        size = sum(stream.bytes for stream in prepared.manifest.streams)
        speed = size / 1e6 / max(prepared.seconds, 1e-9)
        print_line(terminal, f"{size / 1e6:.1f} MB of text in {prepared.seconds:.1f} s ({speed:.1f} MB/s)")


def _run_with_progress(request: "Request", tokenizer: "Tokenizer", json_output: bool) -> "Prepared":
    """Run the preparation, with speed and time left in a terminal, and a line now and then elsewhere."""
    from rich import progress as rich_progress
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    from braingpt.data.prepare.pipeline import prepare as run

    terminal = console(stderr=json_output)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with rich_progress.Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task(request.name, total=None, facts="", left="")
        # Seconds at the last line without a terminal.
        last_line = 0.0
        # Bytes that an earlier, interrupted process had already read.
        bytes_before: int | None = None
        time_left = TimeLeft(1.0)

        def advance(progress: "Progress") -> None:
            nonlocal last_line, bytes_before
            seconds = bar.tasks[0].elapsed or 1e-9
            if bytes_before is None:
                bytes_before = progress.bytes
                time_left.done = progress.done or 0.0
            time_left.update(progress.done or 0.0)
            left = "" if time_left.seconds is None else f"{duration(time_left.seconds)} left"
            rate = (progress.bytes - bytes_before) / 1e6 / seconds
            kept = f"{progress.kept:,} of {progress.read:,} documents kept"
            facts = f"{kept}, {progress.tokens / 1e6:,.1f}M tokens, {rate:.1f} MB/s"
            if not terminal.is_terminal and seconds - last_line > LOG_SECONDS:
                last_line = seconds
                print_line(terminal, ", ".join(filter(None, [f"{progress.source}: {facts}", left])))
            bar.update(
                task,
                description=progress.source,
                facts=facts,
                left=left,
                completed=progress.done or 0,
                total=None if progress.done is None else 1,
            )

        return run(
            request, tokenizer, note=lambda line: print_line(terminal, f"note: {line}"), progress=advance
        )


def _parse_count(text: str) -> int:
    """A count such as 500k, 20M, 1.5B or 2000000."""
    from braingpt.errors import UserError

    wrong = UserError(f"--max-tokens is a number such as 500k, 20M or 1B, not '{text}'")
    match = re.fullmatch(r"([\d.,_]+)([kMBTmb]?)", text.strip())
    if not match:
        raise wrong
    try:
        return round(float(match[1].replace(",", "").replace("_", "")) * UNITS[match[2].lower()])
    except ValueError:
        raise wrong from None


def _parse_part(text: str) -> tuple[int, int]:
    """(part, parts) of `2/8`."""
    from braingpt.errors import UserError

    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise UserError(f"--part is a part and the number of parts, such as 2/8, not '{text}'")
    return int(match[1]), int(match[2])
