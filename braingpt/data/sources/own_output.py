"""Folders that braingpt wrote, which stand among a user's texts in many projects and are not texts.

A prepared folder in `data/` beside the texts it was made from would otherwise be read as texts the next time,
its manifest line by line.
"""

from pathlib import Path

# What a folder is, and the files by which it is known; all of them are there.
_MARKS = (
    ("a prepared data folder", ("manifest.json", "tokenizer/tokenizer.json")),
    ("a tokenizer", ("tokenizer.json", "ranks.tiktoken")),
    ("a run", ("recipe.yaml", "metrics.jsonl")),
    ("a run", ("recipe.yaml", "checkpoints")),
    ("a checkpoint", ("recipe.yaml", "state.json")),
    ("a benchmark", ("bench.json", "report.html")),
    ("the log of a preparation on many machines", ("executor.json", "completions")),
)


def kind_of_output(folder: Path) -> str | None:
    """What braingpt wrote as this folder, in words; None for any other folder."""
    for kind, names in _MARKS:
        if all((folder / name).exists() for name in names):
            return kind
    return None
