"""metrics.jsonl of a run folder: one JSON object a line, of kind "train" every step, "validation" every
evaluation, "growth" when the model grows, "incident" for a bad batch, "rewind" for going back.

A line that a crash or a disk has damaged costs that line: it is left out, and a note says so.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

METRICS = "metrics.jsonl"
# Where the writer of a run keeps lines that are no records.
DAMAGED = "metrics.damaged"
# Line numbers that a note names.
NAMED = 3


class _Record(BaseModel):
    """What every record has; other keys are of its kind."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    kind: str
    step: int = Field(ge=0)


class _Train(_Record):
    loss: float | None
    tokens: int
    seconds: float
    tokens_per_second: float
    inside: dict[str, float] = {}


class _Score(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    loss: float | None
    bits_per_byte: float | None


class _Validation(_Record):
    loss: float | None
    bits_per_byte: float | None
    by_language: dict[str, _Score]
    inside: dict[str, float] = {}
    validated_on: str = ""


_KINDS: dict[Any, type[_Record]] = {"train": _Train, "validation": _Validation}


class Metrics(NamedTuple):
    """The records of a run, and the lines that are none, by number."""

    records: list[dict[str, Any]]
    damaged: dict[int, bytes]


def read_metrics(run: Path, note: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """All records of a run, without lines that are damaged.

    Args:
        run: The run folder.
        note: Receives one line where lines are damaged.
    """
    found = read_lines(run)
    if found.damaged:
        note(f"{in_words(run, found.damaged)}; left out")
    return found.records


def read_lines(run: Path) -> Metrics:
    """The records of a run, and the damaged lines. A last line that is being written is neither."""
    path = Path(run) / METRICS
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    found = Metrics([], {})
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (record := _parse(line)) is not None:
            found.records.append(record)
        elif number < len(lines):
            found.damaged[number] = line
    return found


def in_words(run: Path, damaged: dict[int, bytes]) -> str:
    """`runs/x/metrics.jsonl: 2 lines are no records (lines 3, 9)`"""
    numbers = ", ".join(map(str, list(damaged)[:NAMED])) + (", ..." if len(damaged) > NAMED else "")
    one = len(damaged) == 1
    lines = f"line {numbers} is no record" if one else f"{len(damaged)} lines are no records ({numbers})"
    return f"{Path(run) / METRICS}: {lines} of a run"


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is none."""
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        kind = record.get("kind") if isinstance(record, dict) else None
        _KINDS.get(kind if isinstance(kind, str) else None, _Record).model_validate(record)
    except (ValueError, RecursionError, ValidationError):
        return None
    return record


def _refuse(text: str) -> NoReturn:
    """NaN and infinity are no JSON."""
    raise ValueError(text)
