"""`braingpt memory`: texts for a model to remember, in a file that `generate --memory` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli import completion
from braingpt.cli.cleaning import clean_valid_counted, print_changes
from braingpt.cli.command import MODEL, TEXT, Command, Group
from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import Device, OpenRun, open_run, read_text
from braingpt.cli.progress_bar import ProgressBar

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.episodic.memory import EpisodicMemory

app = typer.Typer(
    cls=Group,
    help="""Teach a trained model texts, without training.

    Examples:
        braingpt memory add facts.memory "The lighthouse keeper is called Haneul."
        braingpt generate --memory facts.memory --prompt "The lighthouse keeper is called"
    """,
    no_args_is_help=True,
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="The memory file.")]


@app.command(cls=Command)
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The memory file; a new one is made if there is none.")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts to remember.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="Also remember each line of this text file; - is standard input.",
            rich_help_panel=TEXT,
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="The model's run folder. [default: the newest run]",
            rich_help_panel=MODEL,
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            help="Language of the texts: ko, en, ... [default: detected]",
            rich_help_panel=TEXT,
            show_default=False,
            autocompletion=completion.languages,
        ),
    ] = None,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Remember texts. Only what surprises the model is written.

    Examples:
        braingpt memory add facts.memory "The lighthouse keeper is called Haneul."
        braingpt memory add facts.memory --file facts.txt --run runs/nano-v2
    """
    from braingpt.checkpoint.checkpoint import weights_hash
    from braingpt.episodic.storage import save_memory
    from braingpt.errors import UserError, did_you_mean
    from braingpt.tokenizer.cleaning import NO_CHANGES
    from braingpt.utils.atomic_write import check_target
    from braingpt.utils.file_lock import file_lock

    wanted, changes = list(texts or []), NO_CHANGES
    for number, text in enumerate(wanted):
        wanted[number], changed = clean_valid_counted(text)
        changes += changed
    if source:
        lines, changed = clean_valid_counted(read_text(source))
        wanted += [line for line in lines.split("\n") if line.strip()]
        changes += changed
    if not wanted or not all(text.strip() for text in wanted):
        raise UserError("there is nothing to remember; give a TEXT, or a file of lines with --file")
    check_target(file)
    messages = console(stderr=True)
    print_changes(changes, "texts were", messages)
    opened = open_run(run, device, messages)
    model, tokenizer, recipe, state, _ = opened
    if lang is not None and lang not in tokenizer.markers:
        raise UserError(f"unknown language '{lang}'{did_you_mean(lang, tokenizer.markers)}")
    model.eval()
    # Another process that adds or forgets meanwhile would undo this, or be undone.
    with file_lock(file, _note):
        if file.exists():
            memory = load_for(opened, file, messages)
        else:
            from braingpt.episodic.memory import EpisodicMemory

            about = {"recipe": recipe.name, "step": f"step {state['step']}"}
            memory = EpisodicMemory.fresh(model, tokenizer, weights_hash(state), about)
        last, taught = memory.store.last_number, []
        done, characters = 0, sum(map(len, wanted))
        with ProgressBar(console(stderr=True), at_once=False) as bar:
            for count, text in enumerate(wanted, start=1):
                stage, begin, size = f"text {count:,} of {len(wanted):,}", done, len(text)
                number, entries = memory.teach(
                    model,
                    tokenizer,
                    text,
                    lang,
                    lambda share, begin=begin, size=size, stage=stage: bar(
                        (begin + share * size) / characters, stage
                    ),
                )
                done += size
                new = number > last
                taught.append(
                    {"number": number, "text": memory.store.texts[number], "entries": entries, "new": new}
                )
        save_memory(memory, file)
    if json_output:
        print_json(
            {
                "file": str(file),
                "texts": taught,
                "cleaned": changes.as_dict(),
                "entries": len(memory.store),
                "bytes": file.stat().st_size,
            }
        )
        return
    for one in taught:
        note = f"{one['entries']} entries" if one["new"] else "already in the memory"
        print_line(console(), f"{one['number']}  {one['text']}  ({note})")


@app.command("list", cls=Command)
def list_texts(file: File, json_output: Json = False) -> None:
    """List the texts of a memory, with the numbers that `forget` needs.

    Examples:
        braingpt memory list facts.memory
    """
    from braingpt.episodic.storage import load_memory

    memory = load_memory(file)
    rows = [
        {"number": number, "text": text, "entries": memory.store.entries_of(number)}
        for number, text in memory.store.texts.items()
    ]
    if json_output:
        print_json(_facts(file, memory) | {"texts": rows})
        return
    out = console()
    for row in rows:
        print_line(out, f"{row['number']}  {row['text']}  ({row['entries']} entries)")
    model = ", ".join(str(value) for value in memory.about.values())
    size = f"{len(rows)} texts, {len(memory.store)} entries, {file.stat().st_size / 1e6:.2f} MB"
    out.print(f"{size}; of {model}", style="dim", soft_wrap=True)


@app.command(cls=Command)
def forget(
    file: File,
    what: Annotated[
        str, typer.Argument(metavar="NUMBER|all", help="The number of a text in `list`, or all.")
    ],
    json_output: Json = False,
) -> None:
    """Forget one text or all texts. Entries that another text shares are kept.

    Examples:
        braingpt memory forget facts.memory 1
        braingpt memory forget facts.memory all
    """
    from braingpt.episodic.storage import load_memory, save_memory
    from braingpt.errors import UserError
    from braingpt.utils.file_lock import file_lock

    # A file that is not there is reported, and no lock made for it.
    load_memory(file)
    with file_lock(file, _note):
        memory = load_memory(file)
        known = memory.store.texts
        if what != "all" and not (what.isascii() and what.isdigit() and int(what) in known):
            numbers = ", ".join(map(str, list(known)[:10])) + (", ..." if len(known) > 10 else "")
            raise UserError(
                f"{file} has no text number {what}" + (f"; it has {numbers}" if known else "; it is empty")
            )
        forgotten = [
            {"number": number, "text": known[number]}
            for number in (list(known) if what == "all" else [int(what)])
        ]
        for one in forgotten:
            memory.store.forget(one["number"])
        save_memory(memory, file)
    if json_output:
        print_json(_facts(file, memory) | {"forgotten": forgotten})
        return
    for one in forgotten:
        print_line(console(), f"forgotten: {one['number']}  {one['text']}")


def load_for(opened: OpenRun, file: Path, messages: "Console") -> "EpisodicMemory":
    """The memory of a file, which must be made for the weights of the run that is open.

    Texts that were taught before texts were cleaned are written again; only `memory add` keeps the result.
    """
    from braingpt.checkpoint.checkpoint import weights_hash
    from braingpt.episodic.storage import load_memory

    memory = load_memory(file, weights_hash(opened.state))
    if renewed := memory.renew(opened.model, opened.tokenizer):
        texts = "1 text" if renewed == 1 else f"{renewed} texts"
        print_line(messages, f"note: {texts} of {file} read again, cleaned as training texts are")
    return memory


def _note(line: str) -> None:
    print_line(console(stderr=True), line)


def _facts(file: Path, memory: "EpisodicMemory") -> dict[str, Any]:
    """What the JSON says about a memory file."""
    return {
        "file": str(file),
        "entries": len(memory.store),
        "bytes": file.stat().st_size,
        "model": memory.about,
        "weights": memory.weights,
    }
