"""`braingpt quickstart`: the whole path in under three minutes on two CPU cores, without a network.

Prepares the built-in corpus, trains nano-v2 on it, shows the loss falling, lets the model write Korean and
English and counts what it left out. Every step is a call of the command's own library function.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braingpt.cli.console import Json, console, print_json

if TYPE_CHECKING:
    from braingpt.data.shards.reader import ShardSet

# a run of this name may be replaced by the next quickstart
NAME = "quickstart"
DATA, RUN = Path("data/sample"), Path("runs/quickstart")
# tokens of each text
WRITTEN = 48
SPARK = "▁▂▃▄▅▆▇█"


def quickstart(
    out: Annotated[
        Path, typer.Option("--out", help="The run folder; that of an earlier quickstart is replaced.")
    ] = RUN,
    minutes: Annotated[
        float,
        typer.Option("--minutes", min=0.02, help="Time to train; how many steps fit is measured first."),
    ] = 2.25,
    json_output: Json = False,
) -> None:
    """The whole path in under three minutes. Data, training, text, a look inside."""
    from braingpt.device.cpu import configure_cpu

    # before anything computes: threads inherit the flag
    configure_cpu()
    began = time.perf_counter()
    screen = console(json_output)
    _clear(out)

    screen.rule("1 data", align="left")
    from braingpt.data.prepare.pipeline import Request, prepare
    from braingpt.tokenizer import Tokenizer

    prepared = prepare(Request("sample", DATA), Tokenizer.default())
    languages, tokens = ", ".join(prepared.manifest.languages()), prepared.manifest.total("train")
    already = "" if prepared.fresh else ", prepared already"
    screen.print(f"{DATA}: {tokens:,} tokens of the built-in corpus ({languages}){already}", soft_wrap=True)

    screen.rule("2 training", align="left")
    from braingpt.recipes import load_recipe
    from braingpt.train.loop import train
    from braingpt.train.step_time import step_seconds
    from braingpt.train.run.progress import reporter_for

    recipe = load_recipe("nano-v2", [f"name={NAME}"])
    steps = max(20, min(recipe.train.steps, round(60 * minutes / step_seconds(recipe, [DATA], "cpu"))))
    screen.print(
        f"{steps} steps take about {60 * minutes:.0f} s here"
        if steps < recipe.train.steps
        else f"{steps} steps"
    )
    # few steps: all in proportion
    warmup, save_every = min(recipe.train.warmup, steps // 4), min(recipe.train.save_every, steps // 2)
    recipe = load_recipe(
        "nano-v2",
        [f"name={NAME}", f"train.steps={steps}", f"train.warmup={warmup}", f"train.save_every={save_every}"],
    )
    result = train(recipe, out, [DATA], reporter=reporter_for(screen), device="cpu")
    if result.interrupted:
        console(True).print(
            f"stopped after step {result.step}; braingpt quickstart begins again", soft_wrap=True
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
    texts = [_write(model, tokenizer, shards, language, screen) for language in ("ko", "en")]

    screen.rule("4 inside", align="left")
    report = _look(model, tokenizer, shards, screen)

    seconds = time.perf_counter() - began
    screen.rule("next", align="left")
    screen.print(f"done in {seconds:.0f} s\n")
    for command in (
        f"braingpt generate {out} --lang ko",
        f"braingpt inspect-sparsity {out}",
        f"braingpt eval {out}",
    ):
        screen.print(f"  {command}", soft_wrap=True, markup=False)
    screen.print(
        "  braingpt data prepare korean && braingpt train --recipe tiny-v2", soft_wrap=True, markup=False
    )
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
    """Remove an earlier quickstart's run; UserError for anyone else's."""
    import os
    import shutil

    from braingpt.errors import UserError
    from braingpt.recipes import load_recipe
    from braingpt.train.run.folder import RECIPE, is_run, locked

    # nobody trains there now, and it is a run or nothing yet
    with locked(out):
        if not is_run(out):
            return
        if not (out / RECIPE).is_file() or load_recipe(out / RECIPE).name != NAME:
            raise UserError(f"{out} is a run that quickstart did not make; --out DIR takes another folder")
    hidden = out.with_name(f".{out.name}.old-{os.getpid()}")
    out.rename(hidden)
    shutil.rmtree(hidden)


def _losses(run: Path, points: int = 24) -> list[float]:
    """The training loss at the first step and as means over equal stretches of the run."""
    from braingpt.train.run.folder import read_metrics

    every = [
        record["loss"]
        for record in read_metrics(run)
        if record["kind"] == "train" and record["loss"] is not None
    ]
    stretch = max(1, len(every) // points)
    return [
        every[0],
        *(sum(every[i : i + stretch]) / len(every[i : i + stretch]) for i in range(0, len(every), stretch)),
    ]


def _spark(values: list[float]) -> str:
    """One block a value, its height the value's place between lowest and highest."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(SPARK[round((value - low) / span * (len(SPARK) - 1))] for value in values)


def _write(model: Any, tokenizer: Any, shards: "ShardSet", language: str, screen: Any) -> dict[str, Any]:
    """Let the model go on from the first words of a held-out text."""
    from rich.text import Text

    from braingpt.inference.text_stream import generate_text

    ids = shards.window("validation", language, 0, min(64, shards.tokens("validation", language))).tolist()
    document = ids[1 : ids.index(tokenizer.eot)] if tokenizer.eot in ids else ids[1:]
    # of one line: a diary's date is no part of its first sentence
    prompt = " ".join(tokenizer.decode(document).split("\n")[0].split()[:3])
    written = generate_text(
        model,
        tokenizer,
        prompt,
        language=language,
        max_new_tokens=WRITTEN,
        temperature=0.6,
        top_p=0.9,
        seed=0,
    )
    text = "".join(written)
    screen.print(Text.assemble((f"{language}  ", "dim"), (prompt, "bold"), " ".join(text.splitlines())))
    return {
        "language": language,
        "prompt": prompt,
        "text": text,
        "tokens_per_second": written.tokens_per_second,
    }


def _look(model: Any, tokenizer: Any, shards: "ShardSet", screen: Any) -> Any:
    """Count on held-out text what the model left out."""
    from braingpt.inspection.sparsity import sparsity_of_tokens

    ids: list[int] = []
    for language in shards.languages("validation"):
        ids += shards.window(
            "validation", language, 0, min(2048, shards.tokens("validation", language))
        ).tolist()
    report = sparsity_of_tokens(model, ids, context=128)
    total, active = model.parameters_total(), model.parameters_active()
    figures = (
        ("tokens that attend, in attention layers", report.total.attended),
        ("columns computed", report.total.columns_active),
        ("neurons that fired", report.total.neurons_fired),
        ("layers' arithmetic done, of the same shape dense", report.total.computed),
        (f"parameters a token multiplies with (head included), of {total:,}", active / total),
    )
    screen.print(f"over {report.tokens:,} held-out tokens:")
    for name, share in figures:
        if share is not None:
            screen.print(f"  {share:6.1%}  {name}", soft_wrap=True)
    return report
