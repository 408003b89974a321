"""`braingpt quickstart`: all steps in under three minutes on two CPU cores, without a network.

The command prepares the built-in corpus, trains nano-v2 on it, shows how the loss falls, generates Korean
and English text, and counts what the model skips. Every step calls the library function of its own command.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.utils.paths import check_folder, shell_word

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.data.shards.reader import ShardSet
    from braingpt.inspection.sparsity import SparsityReport
    from braingpt.model.lm import LanguageModel
    from braingpt.tokenizer import Tokenizer

# The name of the run, by which the next quickstart knows that it may replace the run.
NAME = "quickstart"
DATA, RUN = Path("data/sample"), Path("runs/quickstart")
# Tokens of each generated text.
NEW_TOKENS = 48
# Tokens of each language whose sparsity is counted.
COUNTED_TOKENS = 2048
SPARK = "▁▂▃▄▅▆▇█"


def quickstart(
    out: Annotated[
        Path, typer.Option("--out", help="The run folder; the run of an earlier quickstart is replaced.")
    ] = RUN,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes",
            min=0.02,
            max=100_000,
            help="Training time; the number of steps that fit is measured first.",
        ),
    ] = 2.25,
    json_output: Json = False,
) -> None:
    """Try all steps in under three minutes.

    Data, training, text, sparsity.

    Examples:
        braingpt quickstart
        braingpt quickstart --minutes 1
    """
    from braingpt.device.core_sharing import share_cores
    from braingpt.device.cpu import configure_cpu

    # This comes before any computation, because threads inherit the flag.
    configure_cpu()
    began = time.perf_counter()
    screen = console(json_output)
    check_folder(out)
    check_folder(DATA, "the data folder")
    share_cores(lambda line: print_line(screen, f"note: {line}"))
    _clear(out)

    screen.rule("1 data", align="left")
    from braingpt.data.prepare.pipeline import Request, prepare
    from braingpt.tokenizer import Tokenizer

    prepared = prepare(Request("sample", DATA), Tokenizer.default())
    languages, tokens = ", ".join(prepared.manifest.languages()), prepared.manifest.total("train")
    already = "" if prepared.fresh else ", already prepared"
    print_line(screen, f"{DATA}: {tokens:,} tokens of the built-in corpus ({languages}){already}")

    screen.rule("2 training", align="left")
    from braingpt.recipes import load_recipe
    from braingpt.train.loop import train
    from braingpt.train.run.progress import reporter_for
    from braingpt.train.step_time import step_seconds

    recipe = load_recipe("nano-v2", [f"name={NAME}"])
    fitting = 60 * minutes / step_seconds(recipe, [DATA], "cpu")
    steps = max(20, round(min(recipe.train.steps, fitting)))
    screen.print(
        f"{steps} steps take about {60 * minutes:.0f} s here"
        if steps < recipe.train.steps
        else f"{steps} steps"
    )
    # A short run has a short warm-up, and is saved at its half.
    warmup, save_every = min(recipe.train.warmup, steps // 4), min(recipe.train.save_every, steps // 2)
    recipe = load_recipe(
        "nano-v2",
        [f"name={NAME}", f"train.steps={steps}", f"train.warmup={warmup}", f"train.save_every={save_every}"],
    )
    result = train(recipe, out, [DATA], reporter=reporter_for(screen), device="cpu")
    if result.interrupted:
        print_line(
            console(stderr=True), f"stopped after step {result.step}; braingpt quickstart starts again"
        )
        raise SystemExit(130)
    losses = _losses(out)
    speed = f"{result.seconds:.0f} s, {result.tokens / result.seconds:,.0f} tokens/s"
    screen.print(f"loss {losses[0]:.2f} {_spark(losses)} {losses[-1]:.2f}  ({speed})", soft_wrap=True)

    screen.rule("3 text", align="left")
    from braingpt.checkpoint.load import load
    from braingpt.data.shards.reader import ShardSet

    model, tokenizer = load(out)
    shards = ShardSet.open([DATA], tokenizer)
    texts = [_generate(model, tokenizer, shards, language, screen) for language in ("ko", "en")]

    screen.rule("4 sparsity", align="left")
    report = _inspect(model, shards, screen)

    seconds = time.perf_counter() - began
    screen.rule("next", align="left")
    screen.print(f"done in {seconds:.0f} s\n")
    for command in (
        f"braingpt generate {shell_word(out)} --lang ko",
        f"braingpt inspect-sparsity {shell_word(out)}",
        f"braingpt eval {shell_word(out)}",
    ):
        print_line(screen, f"  {command}")
    print_line(screen, "  braingpt data prepare korean && braingpt train --recipe tiny-v2")
    if json_output:
        figures = {
            "data": str(DATA),
            "seconds": seconds,
            "losses": losses,
            "training": result.as_dict(),
            "texts": texts,
        }
        print_json({"run": str(out), **figures, "sparsity": report.as_dict()})


def _clear(out: Path) -> None:
    """Remove the run of an earlier quickstart; UserError for any other run."""
    import os
    import shutil

    from braingpt.errors import UserError
    from braingpt.recipes import load_recipe
    from braingpt.train.run.folder import RECIPE, is_run, locked
    from braingpt.utils.scratch import clear_rests, hidden_beside

    clear_rests(out)
    # The lock holds other trainings off, and the folder is a run or empty.
    with locked(out):
        if not is_run(out):
            return
        if not (out / RECIPE).is_file() or load_recipe(out / RECIPE).name != NAME:
            raise UserError(
                f"{out} is a run that quickstart did not make; choose another folder with --out DIR"
            )
    hidden = hidden_beside(out, f"old-{os.getpid()}")
    out.rename(hidden)
    shutil.rmtree(hidden)


def _losses(run: Path, points: int = 24) -> list[float]:
    """The training loss at the first step, and its means over equal stretches of the run."""
    from braingpt.train.run.folder import read_metrics

    losses = [
        record["loss"]
        for record in read_metrics(run)
        if record["kind"] == "train" and record["loss"] is not None
    ]
    stretch = max(1, len(losses) // points)
    parts = [losses[start : start + stretch] for start in range(0, len(losses), stretch)]
    return [losses[0], *(sum(part) / len(part) for part in parts)]


def _spark(values: list[float]) -> str:
    """One block for each value, higher for values nearer to the highest."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(SPARK[round((value - low) / span * (len(SPARK) - 1))] for value in values)


def _generate(
    model: "LanguageModel", tokenizer: "Tokenizer", shards: "ShardSet", language: str, screen: "Console"
) -> dict[str, Any]:
    """Let the model continue the first words of a held-out text."""
    from rich.text import Text

    from braingpt.inference.text_stream import generate_text

    ids = shards.window("validation", language, 0, min(64, shards.tokens("validation", language))).tolist()
    document = ids[1 : ids.index(tokenizer.eot)] if tokenizer.eot in ids else ids[1:]
    # The words come from one line, because the date of a diary is not part of its first sentence.
    prompt = " ".join(tokenizer.decode(document).split("\n")[0].split()[:3])
    stream = generate_text(
        model,
        tokenizer,
        prompt,
        language=language,
        max_new_tokens=NEW_TOKENS,
        temperature=0.6,
        top_p=0.9,
        seed=0,
    )
    text = "".join(stream)
    screen.print(Text.assemble((f"{language}  ", "dim"), (prompt, "bold"), " ".join(text.splitlines())))
    return {
        "language": language,
        "prompt": prompt,
        "text": text,
        "tokens_per_second": stream.tokens_per_second,
    }


def _inspect(model: "LanguageModel", shards: "ShardSet", screen: "Console") -> "SparsityReport":
    """Count on held-out text what the model skips."""
    from braingpt.inspection.sparsity import sparsity_of_tokens

    ids: list[int] = []
    for language in shards.languages("validation"):
        ids += shards.window(
            "validation", language, 0, min(COUNTED_TOKENS, shards.tokens("validation", language))
        ).tolist()
    report = sparsity_of_tokens(model, ids, context=128)
    total, active = model.parameters_total(), model.parameters_active()
    figures = (
        ("tokens that attend, in attention layers", report.total.attended),
        ("columns computed", report.total.columns_active),
        ("neurons that fired", report.total.neurons_fired),
        ("arithmetic of the layers, compared with dense layers of the same shape", report.total.computed),
        (f"parameters a token multiplies with (head included), of {total:,}", active / total),
    )
    screen.print(f"on {report.tokens:,} held-out tokens:")
    for name, share in figures:
        if share is not None:
            screen.print(f"  {share:6.1%}  {name}", soft_wrap=True)
    return report
