"""`braingpt chat`: talk with a model in turns; it keeps its state between them."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from braingpt.cli.console import Json, console
from braingpt.cli.options import Device, Run, open_run, show


def chat(
    run: Run = None,
    lang: Annotated[
        str | None, typer.Option(help="Language of the talk: ko, en, ... [default: that of the first turn]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens an answer.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Choose among the K likeliest tokens.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose among the likeliest tokens that hold a share P.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed and turns give the same answers.", show_default=False)
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Talk with a model. /new starts afresh, /quit or the end of input leaves.

    --json prints one JSON object a turn.
    """
    import json as encoder

    from braingpt.inference.chat import Conversation

    say = console(json_output=True)
    model, tokenizer, _, _, _ = open_run(run, device, say)
    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    talk = Conversation(model, tokenizer, language=lang, **settings)
    say.print(
        "This is a base model: it was trained to continue text, not to hold a dialogue, so it continues rather than answers."
    )
    for line in _turns():
        if line == "/quit":
            break
        if line == "/new":
            talk = Conversation(model, tokenizer, language=lang, **settings)
            continue
        pieces = []
        for piece in talk.say(line):
            pieces.append(piece)
            if not json:
                show(piece)
        if json:
            turn = {"user": line, "assistant": "".join(pieces), "tokens_read": talk.tokens_read}
            print(encoder.dumps(turn, ensure_ascii=False), flush=True)
        else:
            show("\n")


def _turns() -> Iterator[str]:
    """Lines that hold something, from a terminal with a prompt or from a pipe."""
    from braingpt.errors import UserError

    if sys.stdin.isatty():
        import readline  # noqa: F401  (gives input() its line editing)

    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            show("\n")
            return
        except UnicodeDecodeError:
            raise UserError("standard input is not UTF-8 text; convert it first") from None
        if not line and not sys.stdin.isatty():
            return
        if line.strip():
            yield line.strip()
