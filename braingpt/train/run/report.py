"""A run's report: report.md and curves.svg in its folder, with everything needed to repeat it."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

from braingpt.checkpoint import listing
from braingpt.errors import UserError, did_you_mean
from braingpt.html.png import png_if_possible
from braingpt.html.svg import lines as line_plot
from braingpt.html.svg import standalone
from braingpt.recipes import load_recipe, recipe_text
from braingpt.train.plan.plan import build_plan
from braingpt.train.run.folder import BEST, RECIPE, is_run, read_metrics
from braingpt.utils.atomic_write import write_whole
from braingpt.utils.formatting import duration, short_count

REPORT, CURVES, PIXELS = "report.md", "curves.svg", "curves.png"


def find_runs(folder: Path) -> list[Path]:
    """The run folders in `folder`, youngest metrics last."""
    found = [
        path for path in folder.glob("*") if path.is_dir() and is_run(path) and (path / RECIPE).is_file()
    ]
    return sorted(found, key=lambda path: (path / RECIPE).stat().st_mtime_ns)


def open_summary(run: Path | str, runs: Path = Path("runs")) -> dict[str, Any]:
    """`summary` of a run given by folder or by its name under `runs`.

    Raises UserError where there is none.
    """
    for path in (Path(run), runs / run):
        if is_run(path) and (path / RECIPE).is_file():
            return summary(path)
    raise UserError(f"there is no run {run}{did_you_mean(str(run), [path.name for path in find_runs(runs)])}")


def summary(run: Path) -> dict[str, Any]:
    """A run in figures, from its recipe, metrics and checkpoints.

    Losses in nats a token; None for what has not happened yet.
    """
    recipe, records = load_recipe(run / RECIPE), read_metrics(run)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        kinds.setdefault(record["kind"], []).append(record)
    steps, scores = kinds.get("train", []), kinds.get("validation", [])
    last, plan = (steps or [{}])[-1], build_plan(recipe, None)
    newest = listing.newest(run)
    speeds = sorted(record["tokens_per_second"] for record in steps)
    return {
        "run": str(run), "name": recipe.name, "architecture": recipe.model.architecture,
        "parameters_total": plan.parameters_total, "parameters_active": plan.parameters_active,
        "step": last.get("step", 0), "steps": recipe.train.steps, "stage": last.get("stage"),
        "layers": last.get("layers", recipe.model.layers), "tokens": last.get("tokens", 0), "seconds": last.get("seconds", 0.0),
        "loss": last.get("loss"), "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
        "validation": scores[-1] if scores else None,
        "best": json.loads((run / BEST).read_text(encoding="utf-8")) if (run / BEST).is_file() else None,
        "skipped": sum("skipped" in record for record in steps), "spikes": sum("spike" in record for record in steps),
        "rewinds": len(kinds.get("rewind", [])), "checkpoint": str(newest) if newest else None,
        "checkpoints": len(listing.list_checkpoints(run)),
    }  # fmt: skip


def differences(runs: list[Path]) -> dict[str, list[Any]]:
    """The recipe keys in which the runs differ, with each run's value."""
    trees = [dict(_flat(load_recipe(run / RECIPE).model_dump(mode="json"))) for run in runs]
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
    """Write report.md, curves.svg and, with the extra `png`, curves.png into `run`, replacing older ones;
    `samples`: texts the model wrote, by language.
    """
    figures, recipe, records = summary(run), load_recipe(run / RECIPE), read_metrics(run)
    steps = [record for record in records if record["kind"] == "train"]
    scores = [record for record in records if record["kind"] == "validation"]
    drawn = {"training loss": [(r["step"], r["loss"]) for r in steps if r["loss"] is not None]}
    drawn["validation loss"] = [(r["step"], r["loss"]) for r in scores if r["loss"] is not None]
    plot = line_plot(drawn, f"{recipe.name}: loss in nats a token", "step")
    write_whole(run / CURVES, standalone(plot))
    if pixels := png_if_possible(plot):
        (run / PIXELS).write_bytes(pixels)
    folders = " ".join(f"--data {shlex.quote(folder)}" for folder in recipe.data.folders)
    best, validation = figures["best"], figures["validation"]
    lines = [
        f"# {recipe.name}", "",
        f"{short_count(figures['parameters_total'])} parameters, {short_count(figures['parameters_active'])} active; step {figures['step']:,} of"
        f" {figures['steps']:,}, {short_count(figures['tokens'])} tokens in {duration(figures['seconds'])}.", "",
        f"![loss]({PIXELS if pixels else CURVES})", "",
    ]  # fmt: skip
    if validation:
        lines += ["| language | loss | bits per byte |", "|---|---|---|"]
        rows = {**validation["by_language"], "all": validation}
        lines += [
            f"| {name} | {_figure(score['loss'])} | {_figure(score['bits_per_byte'])} |"
            for name, score in rows.items()
        ]
        lines += [
            "",
            f"at step {validation['step']}"
            + (f"; best: loss {best['loss']:.4f} at step {best['step']}." if best else "."),
            "",
        ]
        if validation.get("inside"):
            lines += [
                "Inside, on the validation text: "
                + ", ".join(f"{k} {v:.3g}" for k, v in validation["inside"].items())
                + ".",
                "",
            ]
    lines += [
        f"Gradients left out: {figures['skipped']}; loss spikes: {figures['spikes']}; gone back: {figures['rewinds']} times.",
        "",
    ]
    for language, text in (samples or {}).items():
        lines += [f"**{language}**: {' '.join(text.split())}", ""]
    command = f"braingpt train --recipe {shlex.quote(str(run / RECIPE))} {folders} --out NEW".replace(
        "  ", " "
    )
    lines += ["## To repeat it", "", "```", command, "```", "", f"braingpt revision: {revision()}", ""]
    lines += [
        "## Data",
        "",
        *_data(recipe.data.folders),
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe_text(recipe).rstrip(),
        "```",
        "",
    ]
    write_whole(run / REPORT, "\n".join(lines))
    return run / REPORT


def revision() -> str:
    """The version, and the git revision of a checkout, marked where files were changed."""
    from braingpt import __version__

    package = Path(__file__).parents[2]
    found = [
        subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(package)])
    ]
    if found[0].returncode:
        return __version__
    return f"{__version__}, git {found[0].stdout.strip()}" + (
        " with changes" if found[1].stdout.strip() else ""
    )


def _data(folders: tuple[str, ...]) -> list[str]:
    """What the prepared folders say of themselves, a line each."""
    from braingpt.data.shards.manifest import read_manifest

    lines = []
    for folder in folders:
        try:
            manifest = read_manifest(Path(folder))
        except UserError:
            lines.append(f"- {folder}: not there any more")
            continue
        lines.append(
            f"- {folder}: {manifest.total('train'):,} training tokens ({', '.join(manifest.languages())}), made {manifest.created}"
        )
    return lines


def _flat(tree: dict[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
