"""`braingpt chat`: a dialogue with a model, which keeps its state between the turns."""

import io
import json
import sys
from collections.abc import Iterator

from braingpt.cli.cleaning import clean_valid_counted, print_changes
from braingpt.cli.console import console, print_line, print_text
from braingpt.cli.json_output import Json
from braingpt.cli.options import (
    Device,
    Language,
    MaxNewTokens,
    MinP,
    RepetitionPenalty,
    Run,
    Seed,
    Temperature,
    TopK,
    TopP,
    open_run,
)
from braingpt.utils.terminal_text import visible_json


def chat(
    run: Run = None,
    lang: Language = None,
    max_new_tokens: MaxNewTokens = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Talk with a model. /new starts a new dialogue; /quit or the end of input exits.

    --json prints one JSON object for each turn. A line that is not UTF-8 is left out.

    Examples:
        braingpt chat
        braingpt chat runs/nano-v2 --lang ko --temperature 0.5
    """
    from braingpt.errors import UserError
    from braingpt.inference.chat import Conversation

    messages = console(stderr=True)
    model, tokenizer, _, _, _ = open_run(run, device, messages)
    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    conversation = Conversation(model, tokenizer, language=lang, **settings)
    messages.print(
        "This is a base model, trained to continue text: it continues what you write instead of answering."
    )
    noted = False
    for typed in _turns():
        try:
            line, changes = clean_valid_counted(typed)
        except UserError as error:
            print_line(messages, f"this line is left out: {error}")
            continue
        line = line.strip()
        if not line:
            continue
        if not noted:
            print_changes(changes, "your text is", messages)
            noted = bool(changes)
        if line == "/quit":
            break
        if line == "/new":
            conversation = Conversation(model, tokenizer, language=lang, **settings)
            continue
        pieces = []
        for piece in conversation.say(line):
            pieces.append(piece)
            if not json_output:
                print_text(piece)
        if json_output:
            turn = {
                "user": line,
                "cleaned": changes.as_dict(),
                "assistant": "".join(pieces),
                "tokens_read": conversation.tokens_read,
            }
            line = json.dumps(turn, ensure_ascii=False)
            print_text(visible_json(line, sys.stdout.encoding or "utf-8") + "\n")
        else:
            print_text("\n")


def _turns() -> Iterator[str]:
    """Lines that are not blank, from a terminal with a prompt or from a pipe.

    Bytes that are no text become lone surrogates, so that they cost one line and not the dialogue.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if sys.stdin.isatty():
        # The import gives input() its line editing.
        import readline  # noqa: F401

    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            print_text("\n")
            return
        if not line and not sys.stdin.isatty():
            return
        if line.strip():
            yield line.strip()
