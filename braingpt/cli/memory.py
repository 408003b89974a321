"""`braingpt memory`: texts a model shall remember, in a file that `generate --memory` reads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from braingpt.cli.console import Json, console, print_json
from braingpt.cli.options import Device, open_run, read_text

app = typer.Typer(
    help="Teach a trained model texts, without training: each once, each to be forgotten again.",
    no_args_is_help=True,
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="The memory file.")]


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The memory file; made where there is none.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT...", help="What to remember.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="Remember each line of this text file too; - is standard input.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The model's run folder. [default: the newest run]", show_default=False),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(help="Language of the texts: ko, en, ... [default: detected]", show_default=False),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Remember texts, written once where they surprise the model."""
    from braingpt.checkpoint.checkpoint import weights_hash
    from braingpt.episodic.storage import load_memory, save_memory
    from braingpt.errors import UserError, did_you_mean

    wanted = [
        *(texts or []),
        *(line for line in (read_text(source).splitlines() if source else []) if line.strip()),
    ]
    if not wanted or not all(text.strip() for text in wanted):
        raise UserError("there is nothing to remember: give a text, or --file with lines of text")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(
            f"{file} is a folder; name a file"
            if file.is_dir()
            else f"there is no folder {file.absolute().parent}"
        )
    model, tokenizer, recipe, state, _ = open_run(run, device, console(json_output=True))
    if lang is not None and lang not in tokenizer.markers:
        raise UserError(f"unknown language '{lang}'{did_you_mean(lang, tokenizer.markers)}")
    model.eval()
    if file.exists():
        memory = load_memory(file, weights_hash(state))
    else:
        from braingpt.episodic.memory import EpisodicMemory

        memory = EpisodicMemory.fresh(
            model, tokenizer, weights_hash(state), {"recipe": recipe.name, "step": f"step {state['step']}"}
        )
    last, taught = memory.store.last_number, []
    for text in wanted:
        number, entries = memory.teach(model, tokenizer, text, lang)
        taught.append(
            {"number": number, "text": memory.store.texts[number], "entries": entries, "new": number > last}
        )
    save_memory(memory, file)
    if json:
        print_json(
            {"file": str(file), "texts": taught, "entries": len(memory.store), "bytes": file.stat().st_size}
        )
        return
    for one in taught:
        what = f"{one['entries']} entries" if one["new"] else "remembered already"
        console().print(f"{one['number']}  {one['text']}  ({what})", soft_wrap=True, markup=False)


@app.command("list")
def list_texts(file: File, json: Json = False) -> None:
    """Show what a memory holds, with the numbers that forget takes."""
    from braingpt.episodic.storage import load_memory

    memory = load_memory(file)
    rows = [
        {"number": number, "text": text, "entries": memory.store.entries_of(number)}
        for number, text in memory.store.texts.items()
    ]
    if json:
        print_json(_figures(file, memory) | {"texts": rows})
        return
    out = console()
    for row in rows:
        out.print(f"{row['number']}  {row['text']}  ({row['entries']} entries)", soft_wrap=True, markup=False)
    made = ", ".join(str(value) for value in memory.about.values())
    out.print(
        f"{len(rows)} texts, {len(memory.store)} entries, {file.stat().st_size / 1e6:.2f} MB; of {made}",
        style="dim",
        soft_wrap=True,
    )


@app.command()
def forget(
    file: File,
    what: Annotated[str, typer.Argument(metavar="NUMBER|all", help="The text's number in `list`, or all.")],
    json: Json = False,
) -> None:
    """Forget a text, or all. Entries that another text shares stay."""
    from braingpt.episodic.storage import load_memory, save_memory
    from braingpt.errors import UserError

    memory = load_memory(file)
    known = memory.store.texts
    if what != "all" and not (what.isascii() and what.isdigit() and int(what) in known):
        numbers = ", ".join(map(str, list(known)[:10])) + (", ..." if len(known) > 10 else "")
        raise UserError(
            f"{file} holds no text number {what}" + (f"; it holds {numbers}" if known else "; it is empty")
        )
    forgotten = [
        {"number": number, "text": known[number]}
        for number in (list(known) if what == "all" else [int(what)])
    ]
    for text in forgotten:
        memory.store.forget(text["number"])
    save_memory(memory, file)
    if json:
        print_json(_figures(file, memory) | {"forgotten": forgotten})
        return
    for text in forgotten:
        console().print(f"forgotten: {text['number']}  {text['text']}", soft_wrap=True, markup=False)


def _figures(file: Path, memory: Any) -> dict[str, Any]:
    return {
        "file": str(file),
        "entries": len(memory.store),
        "bytes": file.stat().st_size,
        "model": memory.about,
        "weights": memory.weights,
    }
