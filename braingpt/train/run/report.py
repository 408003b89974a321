"""A run's report: report.md and its curves in the run folder, with everything needed to repeat the run."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braingpt import __version__
from braingpt.checkpoint import listing
from braingpt.data.shards.manifest import read_manifest
from braingpt.errors import UserError, did_you_mean
from braingpt.html.lines import lines as line_plot
from braingpt.recipes import recipe_text
from braingpt.train.plan.plan import build_plan
from braingpt.train.run.flat_settings import flat_settings
from braingpt.train.run.folder import RECIPE, is_run, read_best, read_metrics, run_recipe
from braingpt.train.run.lineage import commands, in_words, read_lineage
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.formatting import duration, short_count

# What the shares inside a model mean, where a report has them.
INSIDE = {
    "attended": "share of the tokens that query earlier tokens, of those that reach an attention layer",
    "keys": "share of the query-key pairs that enter a softmax, of those that causality allows",
    "columns": "share of the columns that compute for a token",
    "depth": "share of the layers that a token passes",
    "imbalance": "load of the busiest column over the mean load; 1.0 is even",
    "computed": "arithmetic of the layers, over that of the same layers computed densely",
}
REPORT, CURVES, PIXELS = "report.md", "curves.svg", "curves.png"


def find_runs(folder: Path) -> list[Path]:
    """The run folders in `folder`, youngest metrics last."""
    found = [
        path for path in folder.glob("*") if path.is_dir() and is_run(path) and (path / RECIPE).is_file()
    ]
    return sorted(found, key=lambda path: (path / RECIPE).stat().st_mtime_ns)


def open_summary(
    run: Path | str, runs: Path = Path("runs"), note: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """`summary` of a run given by folder or by its name under `runs`; `note` receives what is damaged.

    Raises UserError where there is none.
    """
    for path in (Path(run), runs / run):
        if is_run(path) and (path / RECIPE).is_file():
            return summary(path, note)
    raise UserError(f"there is no run {run}{did_you_mean(str(run), [path.name for path in find_runs(runs)])}")


def summary(run: Path, note: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """A run in figures, from its recipe, metrics and checkpoints.

    Losses are in nats a token; what has not happened yet is None. `note` receives a line for each file that
    is damaged and read without the damaged part.
    """
    recipe, records = run_recipe(run), read_metrics(run, note)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        kinds.setdefault(record["kind"], []).append(record)
    steps, scores = kinds.get("train", []), kinds.get("validation", [])
    last, plan = (steps or [{}])[-1], build_plan(recipe, None)
    newest = listing.newest(run)
    speeds = sorted(record["tokens_per_second"] for record in steps)
    return {
        "run": str(run),
        "name": recipe.name,
        "architecture": recipe.model.architecture,
        "parameters_total": plan.parameters_total,
        "parameters_active": plan.parameters_active,
        "step": last.get("step", 0),
        "steps": recipe.train.steps,
        "stage": last.get("stage"),
        "layers": last.get("layers", recipe.model.layers),
        "tokens": last.get("tokens", 0),
        "seconds": last.get("seconds", 0.0),
        "loss": last.get("loss"),
        "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
        "validation": scores[-1] if scores else None,
        "best": read_best(run, note),
        "skipped": sum("skipped" in record for record in steps),
        "spikes": sum("spike" in record for record in steps),
        "rewinds": len(kinds.get("rewind", [])),
        "checkpoint": str(newest) if newest else None,
        "checkpoints": len(listing.list_checkpoints(run)),
        "lineage": [start.model_dump() for start in read_lineage(run, note)],
    }


def differences(runs: list[Path]) -> dict[str, list[Any]]:
    """The recipe keys in which the runs differ, with each run's value."""
    trees = [flat_settings(run_recipe(run)) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    return {
        key: [tree.get(key) for tree in trees]
        for key in keys
        if len({json.dumps(tree.get(key)) for tree in trees}) > 1
    }


def losses_at(run: Path, share: float) -> float | None:
    """The mean training loss around `share` of the run's steps so far: over a twentieth of them."""
    values = [
        record["loss"]
        for record in read_metrics(run)
        if record["kind"] == "train" and record["loss"] is not None
    ]
    width = max(1, len(values) // 20)
    end = max(width, round(share * len(values)))
    return sum(values[end - width : end]) / width if values else None


def write_report(run: Path, samples: dict[str, str] | None = None) -> Path:
    """Write report.md, curves.svg and curves.png into `run`, replacing older ones.

    Args:
        run: The run folder.
        samples: Texts the model wrote, by language.

    Returns:
        The path of report.md.
    """
    figures, recipe, records = summary(run), run_recipe(run), read_metrics(run)
    picture = _draw_curves(run, recipe.name, records)
    total, active = (short_count(figures[name]) for name in ("parameters_total", "parameters_active"))
    lines = [
        f"# {recipe.name}",
        "",
        f"{total} parameters, {active} active; step {figures['step']:,} of {figures['steps']:,},"
        f" {short_count(figures['tokens'])} tokens in {duration(figures['seconds'])}.",
        "",
        f"![loss]({picture})",
        "",
        *_scores(figures),
        f"Updates skipped: {figures['skipped']}; loss spikes: {figures['spikes']};"
        f" rewinds: {figures['rewinds']}.",
        "",
    ]
    for language, text in (samples or {}).items():
        lines += [f"**{language}**: {' '.join(text.split())}", ""]
    starts = read_lineage(run)
    if words := in_words(starts):
        lines += ["## Lineage", "", *(f"- {line}" for line in words), ""]
    lines += ["## Reproduce", "", "```", *commands(run, recipe, starts), "```", ""]
    lines += [f"braingpt revision: {revision()}", ""]
    lines += ["## Data", "", *_data(recipe.data.folders), ""]
    lines += ["## Recipe", "", "```yaml", recipe_text(recipe).rstrip(), "```", ""]
    write_atomically(run / REPORT, "\n".join(lines))
    return run / REPORT


def _draw_curves(run: Path, name: str, records: list[dict[str, Any]]) -> str:
    """Draw the losses over the steps; the name of the PNG, or of the SVG where a font lacks letters."""
    curves = {
        f"{title} loss": [
            (record["step"], record["loss"])
            for record in records
            if record["kind"] == kind and record["loss"] is not None
        ]
        for kind, title in (("train", "training"), ("validation", "validation"))
    }
    plot = line_plot(
        curves, f"{name}: loss over training", "step", "nats a token", caption="Lower is better."
    )
    write_atomically(run / CURVES, plot.svg())
    if plot.letters_missing():
        (run / PIXELS).unlink(missing_ok=True)
        return CURVES
    write_atomically(run / PIXELS, plot.png())
    return PIXELS


def _scores(figures: dict[str, Any]) -> list[str]:
    """The last validation as a table, the best, and the shares computed."""
    best, validation = figures["best"], figures["validation"]
    if not validation:
        return []
    rows = {**validation["by_language"], "all": validation}
    best_words = f"; best: loss {best['loss']:.4f} at step {best['step']}." if best else "."
    lines = [
        "| language | loss | bits per byte |",
        "|---|---|---|",
        *(
            f"| {name} | {_figure(score['loss'])} | {_figure(score['bits_per_byte'])} |"
            for name, score in rows.items()
        ),
        "",
        f"at step {validation['step']}{best_words}",
        "",
    ]
    if inside := validation.get("inside"):
        shares = ", ".join(f"{name} {value:.3g}" for name, value in inside.items())
        lines += [f"Inside the model, on the validation text: {shares}.", ""]
        lines += [f"- {name}: {meaning}" for name, meaning in INSIDE.items() if name in inside] + [""]
    return lines


def revision() -> str:
    """The version, and the git revision of a checkout, marked where files were changed."""
    package = Path(__file__).parents[2]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    head = git("rev-parse", "HEAD")
    if head.returncode:
        return __version__
    changes = git("status", "--porcelain", "--", str(package)).stdout.strip()
    return f"{__version__}, git {head.stdout.strip()}" + (" with changes" if changes else "")


def _data(folders: tuple[str, ...]) -> list[str]:
    """A line for each prepared folder, from its manifest."""
    lines = []
    for folder in folders:
        try:
            manifest = read_manifest(Path(folder))
        except UserError:
            lines.append(f"- {folder}: no longer there")
            continue
        tokens, languages = manifest.total("train"), ", ".join(manifest.languages())
        lines.append(f"- {folder}: {tokens:,} training tokens ({languages}), made {manifest.created}")
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
