"""`braingpt quickstart`: all steps in under three minutes on two CPU cores, without a network.

The command prepares Korean and English text of the built-in corpus, trains a small v2 on it, shows how the
loss falls, generates text, and counts what the model skips. Every step calls the library function of its own
command. What it gives up: the vocabulary is small and made for this text alone, because most of the
arithmetic of so small a model is in its head (docs/decisions/training-speed.md, T-60).
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.command import OUTPUT
from braingpt.cli.console import console, print_line
from braingpt.cli.invocation import activation, command_line, folder_change
from braingpt.cli.json_output import Json, print_json
from braingpt.utils.paths import check_folder

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.data.shards.reader import ShardSet
    from braingpt.inspection.sparsity import SparsityReport
    from braingpt.model.lm import LanguageModel
    from braingpt.recipes import Recipe
    from braingpt.tokenizer import Tokenizer
    from braingpt.train.run.result import Result

# The name of the run, by which the next quickstart knows that it may continue or replace the run.
NAME = "quickstart"
DATA, RUN = Path("data/quickstart"), Path("runs/quickstart")
LANGUAGES = ("ko", "en")
# BPE entries of the vocabulary.
ENTRIES = 4096
MINUTES = 2.25
# Below this loss in bits per byte, sentences of the built-in corpus read like language.
READABLE = 0.8
# Tokens of each generated text.
NEW_TOKENS = 60
# Tokens of each language whose sparsity is counted.
COUNTED_TOKENS = 2048
SPARK = "▁▂▃▄▅▆▇█"


def quickstart(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The run folder; an interrupted quickstart continues, a finished one is replaced.",
            rich_help_panel=OUTPUT,
        ),
    ] = RUN,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes",
            min=0.02,
            max=100_000,
            help="Training time; the number of steps that fit is measured first.",
        ),
    ] = MINUTES,
    json_output: Json = False,
) -> None:
    """Try all steps in under three minutes.

    Data, training, text, sparsity.

    Examples:
        braingpt quickstart
        braingpt quickstart --minutes 1
    """
    from braingpt.device.cpu import configure_cpu

    # This comes before any computation, because threads inherit the flag.
    configure_cpu()
    again = _again(out, minutes)
    try:
        _walk(out, minutes, json_output, again)
    except KeyboardInterrupt:
        print_line(console(stderr=True), f"interrupted; continue with: {again}")
        raise SystemExit(130) from None


def _again(out: Path, minutes: float) -> str:
    """The same command once more."""
    changed: list[str | Path] = ["--out", out] if out != RUN else []
    changed += ["--minutes", f"{minutes:g}"] if minutes != MINUTES else []
    return command_line("quickstart", *changed)


def _walk(out: Path, minutes: float, json_output: bool, again: str) -> None:
    """All steps, one after the other."""
    from braingpt.device.core_sharing import share_cores

    began = time.perf_counter()
    screen = console(json_output)
    check_folder(out)
    check_folder(DATA, "the data folder")
    share_cores(lambda line: print_line(screen, f"note: {line}"))
    unfinished = _unfinished(out)

    screen.rule("1 data", align="left")
    tokenizer = _prepare(screen)

    screen.rule("2 training", align="left")
    from braingpt.train.loop import train
    from braingpt.train.run.progress import reporter_for

    recipe = unfinished or _recipe(minutes, tokenizer.vocab_size, screen)
    result = train(recipe, out, resume="auto", reporter=reporter_for(screen), device="cpu")
    if result.interrupted:
        stopped = f"stopped after step {result.step} of {result.steps}"
        print_line(console(stderr=True), f"{stopped}; continue with: {again}")
        raise SystemExit(130)
    losses = _losses(out)
    speed = f"{result.seconds:.0f} s, {result.tokens / result.seconds:,.0f} tokens/s"
    screen.print(f"loss {losses[0]:.2f} {_spark(losses)} {losses[-1]:.2f}  ({speed})", soft_wrap=True)

    screen.rule("3 text", align="left")
    from braingpt.checkpoint.load import load
    from braingpt.data.shards.reader import ShardSet

    model, tokenizer = load(out)
    shards = ShardSet.open([DATA], tokenizer)
    texts = [_generate(model, tokenizer, shards, language, screen) for language in LANGUAGES]
    for line in _remarks(result, minutes, out):
        print_line(screen, line)

    screen.rule("4 sparsity", align="left")
    report = _inspect(model, shards, screen)

    seconds = time.perf_counter() - began
    screen.rule("next", align="left")
    screen.print(f"done in {seconds:.0f} s\n")
    for line in _next_commands(out):
        print_line(screen, f"  {line}")
    if json_output:
        figures = {
            "data": str(DATA),
            "seconds": seconds,
            "losses": losses,
            "training": result.as_dict(),
            "texts": texts,
        }
        print_json({"run": str(out), **figures, "sparsity": report.as_dict()})


def _prepare(screen: "Console") -> "Tokenizer":
    """Prepare the text with a vocabulary of its own, which is returned; what is prepared already stays."""
    from braingpt.data.prepare.pipeline import Request, prepare
    from braingpt.data.sample import documents
    from braingpt.tokenizer import Tokenizer
    from braingpt.tokenizer.training import train

    with screen.status("preparing the built-in corpus"):
        if (DATA / "manifest.json").is_file():
            tokenizer = Tokenizer.load(DATA / "tokenizer")
        else:
            texts = (document.text for document in documents() if document.language in LANGUAGES)
            tokenizer = train(texts, ENTRIES)
        prepared = prepare(Request("sample", DATA, languages=list(LANGUAGES)), tokenizer)
    already = "" if prepared.fresh else ", already prepared"
    facts = f"{prepared.manifest.total('train'):,} tokens of the built-in corpus ({', '.join(LANGUAGES)})"
    print_line(screen, f"{DATA}: {facts}{already}")
    return tokenizer


def _recipe(minutes: float, vocabulary: int, screen: "Console") -> "Recipe":
    """The recipe of a new run that takes so many minutes here."""
    from braingpt.recipes import load_recipe
    from braingpt.train.step_time import step_seconds

    settings = [f"name={NAME}", f"model.vocab={vocabulary}", f"data.folders=[{DATA}]"]
    recipe = load_recipe("nano-v2", settings)
    with screen.status("measuring a few steps"):
        steps = max(20, round(60 * minutes / step_seconds(recipe, [DATA], "cpu")))
    screen.print(f"{steps} steps take about {60 * minutes:.0f} s here")
    # A short run has a short warm-up; an interrupted one loses a quarter at most.
    short = {
        "steps": steps,
        "warmup": min(recipe.train.warmup, steps // 4),
        "save_every": max(1, steps // 4),
        "eval_every": max(1, steps // 4),
    }
    return load_recipe("nano-v2", [*settings, *(f"train.{key}={value}" for key, value in short.items())])


def _unfinished(out: Path) -> "Recipe | None":
    """The recipe of an interrupted quickstart in `out`; any other run of quickstart is removed."""
    from braingpt.checkpoint.checkpoint import read_state
    from braingpt.checkpoint.listing import newest
    from braingpt.errors import Failure, UserError
    from braingpt.recipes import load_recipe
    from braingpt.train.run.folder import RECIPE

    saved = newest(out)
    if saved and (out / RECIPE).is_file():
        try:
            recipe = load_recipe(out / RECIPE)
            if recipe.name == NAME and read_state(saved)["step"] < recipe.train.steps:
                return recipe
        except (UserError, Failure):
            # What cannot be continued is replaced.
            pass
    _clear(out)
    return None


def _remarks(result: "Result", minutes: float, out: Path) -> list[str]:
    """What to expect of the text: how much the model has read, and what makes it better."""
    loss = (result.validation or {}).get("bits_per_byte")
    if loss is None:
        return []
    longer = [*(["--out", out] if out != RUN else []), "--minutes", f"{max(4 * minutes, MINUTES):g}"]
    better = f"{command_line('quickstart', *longer)} trains longer"
    if loss < READABLE:
        return [f"{loss:.2f} bits per byte on held-out text; {better}"]
    return [
        f"The text is not language yet: {result.tokens:,} tokens are too few, {loss:.2f} bits per byte.",
        f"Sentences become readable below about {READABLE} bits per byte; {better}.",
    ]


def _next_commands(out: Path) -> list[str]:
    """Commands that work as pasted, in their order."""
    lines = [
        folder_change(),
        activation(),
        command_line("generate", out, "--lang", "ko"),
        command_line("inspect-sparsity", out),
        command_line("eval", out),
        f"{command_line('data', 'prepare', 'korean')} && {command_line('train', '--recipe', 'tiny-v2')}",
    ]
    return [line for line in lines if line]


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
    # A text that the model has not ended is cut somewhere in a sentence.
    shown = " ".join(text.splitlines()) + ("" if stream.finish == "stop" else " ...")
    screen.print(Text.assemble((f"{language}  ", "dim"), (prompt, "bold"), shown))
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
