"""`braingpt data`: prepare corpora for training, list, show and verify what is prepared."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.console import Json, console, print_json
from braingpt.cli.data import view

if TYPE_CHECKING:
    from braingpt.data.prepare.pipeline import Prepared, Request
    from braingpt.data.shards.manifest import Manifest

app = typer.Typer(
    help="Prepare corpora; list, show, verify them.", no_args_is_help=True, rich_markup_mode=None
)
app.command()(view.sample)
app.command()(view.report)

# where `prepare` writes and `list` looks
PREPARED = Path("data")
# parameters that are stamps, long, or said elsewhere
HIDDEN = ("inputs", "quality", "quality_files", "corpus", "tokenizer")
# between progress lines where there is no terminal to draw a bar on
LOG_SECONDS = 30
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A prepared folder, such as data/korean.", show_default=False)
]


@app.command()
def prepare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The corpus; `braingpt data list` shows all. 'text' takes your own files."
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Files and folders of 'text'; the ID of 'hub'.", show_default=False
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Read copies in the hub's layout below DIR, not the hub."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; data/NAME if not given.")
    ] = None,
    languages: Annotated[str | None, typer.Option(metavar="ko,en", help="Only these languages.")] = None,
    max_samples: Annotated[
        int | None, typer.Option(metavar="N", help="At most N documents of each source and language.")
    ] = None,
    max_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="At most N tokens of each source and language; 500k, 20M and 1B will do."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The text column of your tables or of 'hub'; found by name if not given."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit on the hub; main if not given.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME", help="Configuration of a hub dataset.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of 'hub'; train if not given.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(metavar="F", help="Share held out: 0.01, or 0.05 of small corpora.")
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Quality rules that differ from the defaults (YAML, see the data guide)."
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="2/8", help="Only the second of eight parts of the files, on a machine of its own."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes at work; as many as processors if not given.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A tokenizer's folder, gpt2, cl100k_base or o200k_base; ours if not given."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is prepared there already.")] = False,
    json_output: Json = False,
) -> None:
    """Read a corpus; filter, deduplicate, tokenize it; write shards."""
    from braingpt.data.prepare.pipeline import Request
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
        max_tokens=_number(max_tokens) if max_tokens else None,
        column=column,
        revision=revision,
        config=config,
        split=split,
        validation=validation,
        quality=quality,
        part=_part(part) if part else None,
        force=force,
        workers=workers if workers is not None else os.cpu_count() or 1,
    )
    done = _with_progress(request, open_tokenizer(tokenizer), json_output)
    if json_output:
        facts = {
            "folder": str(request.out),
            "fresh": done.fresh,
            "seconds": round(done.seconds, 2),
            "notes": done.notes,
        }
        print_json({**facts, **done.manifest.model_dump()})
        return
    terminal = console()
    if not done.fresh:
        _say(
            terminal, f"{request.out} is prepared already with the same parameters; --force prepares it again"
        )
    _show_manifest(terminal, request.out, done.manifest)
    if done.fresh:
        size = sum(stream.bytes for stream in done.manifest.streams)
        _say(
            terminal,
            f"{size / 1e6:.1f} MB of text in {done.seconds:.1f} s ({size / 1e6 / max(done.seconds, 1e-9):.1f} MB/s)",
        )


@app.command()
def join(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="All parts of one preparation (`prepare --part`).", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace what is prepared there already.")] = False,
    json_output: Json = False,
) -> None:
    """Make the parts of a preparation one folder. Duplicates across them go."""
    from rich.progress import Progress

    from braingpt.data.prepare.join import join as run

    terminal = console(json_output)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("joining", total=1)
        manifest, _ = run(folders, out, force=force, progress=lambda share: bar.update(task, completed=share))
    if json_output:
        print_json({"folder": str(out), **manifest.model_dump()})
    else:
        _show_manifest(terminal, out, manifest)


@app.command("list")
def list_(json_output: Json = False) -> None:
    """Show all corpora, and what is prepared under data/. Languages, licence and size of each."""
    from rich.table import Table
    from rich.text import Text

    from braingpt.data.sources.catalog import DATASETS, PREPARATIONS, languages_of

    corpora = []
    for name, entry in PREPARATIONS.items():
        sets = [DATASETS[dataset] for dataset in entry.datasets]
        corpora.append(
            {
                "name": name,
                "languages": languages_of(name),
                "default_languages": list(entry.languages),
                "about": entry.about,
                "datasets": [dataset.id for dataset in sets],
                "licences": list(dict.fromkeys(dataset.licence for dataset in sets)),
                "sizes": [dataset.size for dataset in sets],
            }
        )
    prepared = _prepared()
    if json_output:
        print_json({"corpora": corpora, "prepared": prepared})
        return
    terminal = console()
    table = Table(
        title="Corpora (braingpt data prepare NAME)",
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
    )
    for corpus in corpora:
        licences, sizes = ("; ".join(dict.fromkeys(corpus[key])) for key in ("licences", "sizes"))
        known = ("each its own licence",) if corpus["name"] == "all" else (sizes, licences)
        facts = " | ".join(filter(None, (" ".join(corpus["languages"]), *known)))
        table.add_row(corpus["name"], Text.assemble(corpus["about"], "\n", (facts, "dim")))
    terminal.print(table)
    if not prepared:
        terminal.print(
            f"Nothing is prepared under {PREPARED}/ yet; 'braingpt data prepare sample' takes seconds and needs no network.",
            markup=False,
        )
        return
    table = Table(title=f"Prepared under {PREPARED}/", title_justify="left")
    for column in ("folder", "corpus", "languages"):
        table.add_column(column)
    for column in ("tokens", "validation", "prepared"):
        table.add_column(column, justify="right")
    for facts in prepared:
        if facts["problem"]:
            table.add_row(facts["folder"], "damaged", "-", "-", "-", "-")
        else:
            tokens, held = f"{facts['train_tokens']:,}", f"{facts['validation_tokens']:,}"
            table.add_row(
                facts["folder"],
                facts["name"],
                " ".join(facts["languages"]),
                tokens,
                held,
                facts["created"][:10],
            )
    terminal.print(table)


@app.command()
def info(folder: Folder, json_output: Json = False) -> None:
    """Show what a prepared folder holds.

    Documents, tokens, bytes by language and source; what was dropped by which rule.
    """
    from braingpt.data.shards.manifest import check_sizes, read_manifest

    manifest = read_manifest(folder)
    check_sizes(folder, manifest)
    if json_output:
        print_json({"folder": str(folder), **manifest.model_dump()})
        return
    terminal = console()
    _show_manifest(terminal, folder, manifest)
    _show_filters(terminal, manifest)
    given = {
        key: value
        for key, value in manifest.parameters.items()
        if value not in (None, [], False) and key not in HIDDEN
    }
    _say(
        terminal,
        f"prepared {manifest.created} by braingpt {manifest.braingpt}; {', '.join(f'{key} {_value(value)}' for key, value in given.items())}",
    )
    _say(
        terminal,
        f"tokenizer {manifest.tokenizer.fingerprint[:12]} of {manifest.tokenizer.vocab_size:,} tokens, stored as {manifest.dtype}",
    )


@app.command()
def verify(folder: Folder, json_output: Json = False) -> None:
    """Check every file of a prepared folder.

    Hashes, token ids against the tokenizer, files too many; exit code 1 for a problem.
    """
    from braingpt.data.shards.documents import DocumentReader
    from braingpt.data.shards.manifest import read_manifest
    from braingpt.data.shards.manifest import verify as problems_of
    from braingpt.errors import Failure

    manifest = read_manifest(folder)
    problems = problems_of(folder, manifest)
    if not problems:
        try:
            problems = DocumentReader(folder).problems()
        except (ValueError, RuntimeError, OSError) as error:
            problems = [str(error)]
    files = sum(len(stream.files) for stream in manifest.streams)
    if json_output:
        print_json({"folder": str(folder), "files": files, "problems": problems})
    elif not problems:
        _say(console(), f"{folder}: {files} files are as they were written")
    if problems:
        raise Failure(
            f"{folder}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}: {'; '.join(problems)}"
        )


def _with_progress(request: "Request", tokenizer: Any, json_output: bool) -> "Prepared":
    """Run the preparation with a line that shows rate and time left, on a terminal only."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from braingpt.data.prepare.pipeline import prepare as run

    terminal = console(json_output)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task(request.name, total=None, facts="")
        # when a line was last logged
        last = [0.0]
        # bytes that were there when this process began
        before: list[int] = []

        def advance(progress: Any) -> None:
            seconds = bar.tasks[0].elapsed or 1e-9
            before.append(progress.bytes) if not before else None
            rate = (progress.bytes - before[0]) / 1e6 / seconds
            facts = f"{progress.kept:,} of {progress.read:,} documents kept, {progress.tokens / 1e6:,.1f}M tokens, {rate:.1f} MB/s"
            done = progress.done
            if not terminal.is_terminal and seconds - last[0] > LOG_SECONDS:
                last[0] = seconds
                _say(terminal, f"{progress.source}: {facts}")
            bar.update(
                task,
                description=progress.source,
                facts=facts,
                completed=done or 0,
                total=None if done is None else 1,
            )

        return run(request, tokenizer, note=lambda line: _say(terminal, f"note: {line}"), progress=advance)


def _number(words: str) -> int:
    """A count such as 500k, 20M, 1.5B or 2000000."""
    from braingpt.errors import UserError

    match = re.fullmatch(r"([\d.,_]+)([kMBTmb]?)", words.strip())
    try:
        assert match
        return round(
            float(match[1].replace(",", "").replace("_", ""))
            * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[match[2].lower()]
        )
    except (AssertionError, ValueError):
        raise UserError(f"--max-tokens is a number such as 500k, 20M or 1B, not '{words}'") from None


def _part(words: str) -> tuple[int, int]:
    from braingpt.errors import UserError

    match = re.fullmatch(r"(\d+)/(\d+)", words)
    if not match:
        raise UserError(f"--part is a number and a count such as 2/8, not '{words}'")
    return int(match[1]), int(match[2])


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _say(terminal: Any, line: str) -> None:
    """One line as it is: a path may hold brackets and be longer than the terminal is wide."""
    terminal.print(line, markup=False, soft_wrap=True)


def _show_manifest(terminal: Any, folder: Path, manifest: "Manifest") -> None:
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
    rules = ", ".join(
        f"{rule} {count:,}" for rule, count in sorted(dropped.items(), key=lambda item: -item[1])
    )
    terminal.print(f"dropped: {rules or 'nothing'}", markup=False)


def _show_filters(terminal: Any, manifest: "Manifest") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Dropped", title_justify="left")
    for column in ("source", "rule", "documents", "such as"):
        table.add_column(column, justify="right" if column == "documents" else "left", overflow="fold")
    for source, report in manifest.filters.items():
        for rule, facts in report["dropped"].items():
            table.add_row(source, rule, f"{facts['documents']:,}", Text(next(iter(facts["samples"]), "")))
    if table.row_count:
        terminal.print(table)


def _prepared() -> list[dict[str, Any]]:
    """A few facts about every prepared folder under data/."""
    from braingpt.data.shards.manifest import NAME, read_manifest
    from braingpt.errors import UserError

    found = []
    for path in sorted(PREPARED.glob(f"*/{NAME}")):
        facts: dict[str, Any] = {"folder": str(path.parent), "problem": None}
        try:
            manifest = read_manifest(path.parent)
            facts |= {
                "name": manifest.name,
                "languages": manifest.languages(),
                "train_tokens": manifest.total("train"),
                "validation_tokens": manifest.total("validation"),
                "created": manifest.created,
            }
        except UserError as error:
            facts["problem"] = str(error)
        found.append(facts)
    return found
