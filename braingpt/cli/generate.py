"""`braingpt generate`: text from a trained model, written as it comes."""

from pathlib import Path
from typing import Annotated

import typer

from braingpt.cli.console import Json, console, print_json
from braingpt.cli.options import (
    Device,
    Dtype,
    Effort,
    ExitThreshold,
    Run,
    open_run,
    read_text,
    show,
)


def generate(
    run: Run = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="The text to continue; - reads it from standard input.", show_default=False),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(help="Language marker to start from: ko, en, ... [default: the prompt's, or ko]"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Choose among the K likeliest tokens.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose among the likeliest tokens that hold a share P.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed writes the same text.", show_default=False)
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the model shall remember; `memory add` makes it.", show_default=False
        ),
    ] = None,
    effort: Effort = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the steps: the first tokens take half a minute or so, the others come faster.",
        ),
    ] = False,
    exit_threshold: ExitThreshold = None,
    draft_layers: Annotated[
        int | None,
        typer.Option(
            help="Exact early exit: so many layers draft, all verify, the text stays the same. Not for v2.",
            show_default=False,
        ),
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Generate text with a trained model, streaming."""
    from braingpt.errors import UserError
    from braingpt.inference.sampling import Sampling
    from braingpt.inference.text_stream import generate_text

    # a wrong setting is told before a model is loaded
    Sampling(temperature, top_k, top_p, seed)
    if prompt == "-":
        prompt = read_text("-")
    if memory is not None and draft_layers is not None:
        raise UserError("--memory and --draft-layers exclude each other: drafts do not ask the memory")
    say = console(json_output=True)
    # With drafts the threshold is how sure of a token the draft must be to go on; no token leaves.
    model, tokenizer, _, state, folder = open_run(
        run, device, say, dtype, effort, None if draft_layers else exit_threshold
    )
    if draft_layers is not None:
        model.set_exit_threshold(None)
    if compiled:
        from braingpt.device.compile import compile_steps

        compile_steps(model, model.device)
    if memory is not None:
        from braingpt.checkpoint.checkpoint import weights_hash
        from braingpt.episodic.memory import Remembering
        from braingpt.episodic.storage import load_memory

        model = Remembering(model, load_memory(memory, weights_hash(state)))
    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    if draft_layers is not None:
        from braingpt.inference.speculative import SpeculativeDecoder

        settings["decoder"] = SpeculativeDecoder(model, draft_layers, min_confidence=exit_threshold or 0.0)
    written = generate_text(model, tokenizer, prompt, language=lang, **settings)
    if json:
        text = "".join(written)
        result = {
            "run": str(folder),
            "step": state["step"],
            "prompt": prompt or "",
            "language": written.language,
            "text": text,
            "tokens": written.tokens,
            "prompt_tokens": written.prompt_tokens,
            "finish": written.finish,
            "seconds": written.seconds,
            "seconds_to_first_token": written.first_token_seconds,
            "tokens_per_second": written.tokens_per_second,
            "dtype": dtype,
            "layers_used": written.decoder.depth(),
        }
        print_json(result)
        return
    show(prompt or "")
    for piece in written:
        show(piece)
    show("\n")
    speed = f", {written.tokens_per_second:.1f} tokens/s" if written.tokens_per_second else ""
    first = f", first token after {written.first_token_seconds:.2f} s" if written.first_token_seconds else ""
    ended = ", ended by the model" if written.finish == "stop" else ""
    varies = model.config.depth_exits or exit_threshold or draft_layers
    depth = f", {written.decoder.depth():.0%} of the layers a token" if varies and written.tokens else ""
    say.print(f"{len(written.tokens)} tokens{speed}{first}{depth}{ended}", style="dim")
