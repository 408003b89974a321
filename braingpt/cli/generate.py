"""`braingpt generate`: text from a trained model, printed token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from braingpt.cli.cleaning import clean_input
from braingpt.cli.command import MACHINE, MODEL, TEXT
from braingpt.cli.console import console, print_text
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import (
    Device,
    Dtype,
    Effort,
    ExitThreshold,
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
    read_text,
)

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.cli.options import OpenRun
    from braingpt.episodic.memory import Remembering
    from braingpt.inference.sampling import SamplingOptions
    from braingpt.inference.text_stream import TextStream


def generate(
    run: Run = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="The text to continue; - reads it from standard input.",
            show_default=False,
            rich_help_panel=TEXT,
        ),
    ] = None,
    lang: Language = None,
    max_new_tokens: MaxNewTokens = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A memory file with texts to remember; `memory add` makes one.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    effort: Effort = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the steps: some seconds once on a machine, with v1 half a minute each time.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    exit_threshold: ExitThreshold = None,
    draft_layers: Annotated[
        int | None,
        typer.Option(
            help="Exact early exit: N layers draft, all layers verify, the text stays the same. Not for v2.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Generate text with a trained model.

    Examples:
        braingpt generate --prompt "오늘은"
        braingpt generate runs/nano-v2 --lang en --temperature 0.5 --seed 1
        echo "Once upon a time" | braingpt generate --prompt -
    """
    from braingpt.errors import UserError
    from braingpt.inference.engine import READ_AT_ONCE
    from braingpt.inference.sampling import Sampling
    from braingpt.inference.text_stream import generate_text

    # A wrong setting is reported before a model is loaded.
    sampling: SamplingOptions = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    Sampling(**sampling)
    if prompt == "-":
        prompt = read_text("-")
    if memory is not None and draft_layers is not None:
        raise UserError(
            "--memory and --draft-layers exclude each other, because drafts do not read the memory"
        )
    messages = console(stderr=True)
    prompt, changes = clean_input(prompt or "", "the prompt was", messages)
    # With drafts, --exit-threshold is how sure the draft must be of a token to continue, and no token exits.
    opened = open_run(run, device, messages, dtype, effort, None if draft_layers else exit_threshold)
    model, tokenizer, _, state, folder = opened
    depth_varies = bool(model.config.depth_exits or exit_threshold or draft_layers)
    if draft_layers is not None:
        model.set_exit_threshold(None)
    if compiled:
        from braingpt.device.compile import compile_steps

        # Drafts run the layers by themselves.
        compile_steps(model, model.device, None if draft_layers is None else "inductor")
    decoder = None
    if draft_layers is not None:
        from braingpt.inference.speculative import SpeculativeDecoder

        decoder = SpeculativeDecoder(model, draft_layers, min_confidence=exit_threshold or 0.0)
    generator = _with_memory(opened, memory, messages) if memory is not None else model
    stream = generate_text(
        generator,
        tokenizer,
        prompt,
        language=lang,
        max_new_tokens=max_new_tokens,
        decoder=decoder,
        **sampling,
    )
    if stream.prompt_tokens > READ_AT_ONCE:
        messages.print(f"reading a prompt of {stream.prompt_tokens:,} tokens; Ctrl-C ends it", style="dim")
    if json_output:
        text = "".join(stream)
        result = {
            "run": str(folder),
            "step": state["step"],
            "prompt": prompt,
            "cleaned": changes.as_dict(),
            "language": stream.language,
            "text": text,
            "tokens": stream.tokens,
            "prompt_tokens": stream.prompt_tokens,
            "finish": stream.finish,
            "seconds": stream.seconds,
            "seconds_to_first_token": stream.first_token_seconds,
            "tokens_per_second": stream.tokens_per_second,
            "dtype": dtype,
            "layers_used": stream.decoder.depth(),
        }
        print_json(result)
        return
    print_text(prompt)
    for piece in stream:
        print_text(piece)
    print_text("\n")
    messages.print(_summary(stream, depth_varies), style="dim")


def _with_memory(opened: "OpenRun", file: Path, messages: "Console") -> "Remembering":
    """The model with the memory of the file, which must be made for the weights of the checkpoint."""
    from braingpt.cli.memory import load_for
    from braingpt.episodic.memory import Remembering

    return Remembering(opened.model, load_for(opened, file, messages))


def _summary(stream: "TextStream", depth_varies: bool) -> str:
    """How many tokens were generated, how fast, and why the text ends."""
    speed = f", {stream.tokens_per_second:.1f} tokens/s" if stream.tokens_per_second else ""
    first = f", first token after {stream.first_token_seconds:.2f} s" if stream.first_token_seconds else ""
    stopped = ", stopped at end of text" if stream.finish == "stop" else ""
    depth = ""
    if depth_varies and stream.tokens:
        depth = f", {stream.decoder.depth():.0%} of the layers per token"
    return f"{len(stream.tokens)} tokens{speed}{first}{depth}{stopped}"
