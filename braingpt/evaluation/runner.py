"""What `braingpt eval` measures of one checkpoint: perplexity, the tasks made here, the harness's; all of it
as figures with their units.

Measured of two checkpoints by one `EvalRequest`, figures pair unit by unit (`figures.compared`).
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from braingpt.errors import UserError, did_you_mean
from braingpt.evaluation import perplexity
from braingpt.evaluation.tasks.in_context import ITEM_TASKS, ITEMS
from braingpt.evaluation.tasks.in_context import measure as measure_items
from braingpt.evaluation.tasks.recall import LEVELS, recall_figures
from braingpt.evaluation.tasks.vocabulary import KINDS
from braingpt.evaluation.uncertainty import Figure

BUILT_IN = ("perplexity", "recall", *ITEM_TASKS)


@dataclass(frozen=True)
class EvalRequest:
    """Which tasks, on what.

    `text` or `folders` are for perplexity; `limit` (items a task), `shots`, `files` and `cache` as in
    `harness.run`.
    """

    tasks: tuple[str, ...] = ("perplexity",)
    text: str | None = None
    folders: tuple[Path, ...] = ()
    language: str | None = None
    # None: that of the model's training
    context: int | None = None
    windows: int = 256
    limit: int | None = None
    shots: int | None = None
    files: Path | None = None
    # a folder
    cache: Path | None = None

    @property
    def foreign(self) -> tuple[str, ...]:
        """Tasks that are the harness's."""
        return tuple(task for task in self.tasks if task not in BUILT_IN)


@dataclass
class EvalResult:
    """Figures in the order of the tasks, the scores behind those of perplexity, and what was noticed."""

    figures: list[Figure] = field(default_factory=list)
    scores: perplexity.Scores | None = None
    notes: list[str] = field(default_factory=list)
    harness: dict[str, Any] | None = None


def check_tasks(wanted: EvalRequest) -> Any:
    """The harness's tasks, opened, where some are wanted; else None.

    UserError for an unknown one, or where the harness is missing.
    """
    if not wanted.foreign:
        if wanted.files is not None:
            raise UserError("--task-files names a folder of lm-eval tasks, but --tasks names none of them")
        return None
    if wanted.files is not None and not wanted.files.is_dir():
        raise UserError(f"--task-files {wanted.files}: there is no such folder")
    if importlib.util.find_spec("lm_eval") is None:
        hint = did_you_mean(wanted.foreign[0], BUILT_IN)
        raise UserError(
            f"unknown task '{wanted.foreign[0]}'{hint} (lm-eval's tasks need: pip install 'braingpt[eval]')"
        )
    from braingpt.evaluation.lm_eval import open_tasks

    return open_tasks(wanted.foreign, BUILT_IN, wanted.files)


def measure(
    model: nn.Module,
    tokenizer: Any,
    recipe: Any,
    wanted: EvalRequest,
    manager: Any,
    key: str,
    say: Callable[[str], None] = lambda what: None,
) -> EvalResult:
    """Everything wanted of one model.

    `manager`: of `check_tasks`; `key`: what the harness's answers are kept under; `say`: told what is next.
    """
    measured, context = EvalResult(), wanted.context or recipe.train.context
    for task in wanted.tasks:
        if task == "perplexity":
            say("perplexity")
            measured.scores = _perplexity(model, tokenizer, recipe, wanted, context)
            measured.figures += measured.scores.figures()
        elif task == "recall":
            for pairs, length in LEVELS:
                say(f"recall {pairs} in {length}")
                measured.figures += recall_figures(model, length, pairs)
        elif task in ITEM_TASKS:
            for language in _languages(tokenizer, wanted.language):
                say(f"{task} {language}")
                figure = measure_items(
                    model, tokenizer, task, language, context, min(wanted.limit or ITEMS, ITEMS)
                )
                measured.figures.append(figure)
                if figure.about["cut"]:
                    measured.notes.append(
                        f"{task} {language}: {figure.about['cut']} texts are longer than {context} tokens and were cut"
                    )
    if wanted.foreign:
        say(", ".join(wanted.foreign))
        _harness(model, tokenizer, wanted, manager, context, key, measured, say)
    return measured


def _perplexity(
    model: nn.Module, tokenizer: Any, recipe: Any, wanted: EvalRequest, context: int
) -> perplexity.Scores:
    if wanted.text is not None:
        return perplexity.evaluate_text(
            model, tokenizer, wanted.text, wanted.language, context=context, device=model.device
        )
    from braingpt.data.shards.reader import ShardSet

    folders = wanted.folders or tuple(Path(folder) for folder in recipe.data.folders)
    return perplexity.evaluate(
        model, ShardSet.open(folders, tokenizer), tokenizer, context=context, windows=wanted.windows, device=model.device,
        reset_at_documents=recipe.data.reset_at_documents,
    )  # fmt: skip


def _languages(tokenizer: Any, asked: str | None) -> Sequence[str]:
    """Languages the tasks made here exist in and the model has read, or the one asked for."""
    if asked is not None and asked not in KINDS:
        raise UserError(f"the tasks made here are in {' and '.join(KINDS)}, not in '{asked}'")
    return [asked] if asked else [language for language in KINDS if language in tokenizer.markers]


def _harness(
    model: nn.Module,
    tokenizer: Any,
    wanted: EvalRequest,
    manager: Any,
    context: int,
    key: str,
    measured: EvalResult,
    say: Callable[[str], None],
) -> None:
    from braingpt.evaluation import lm_eval

    cache = None if wanted.cache is None else wanted.cache / f"{key}-{context}-{wanted.language or 'auto'}"
    found = lm_eval.run_tasks(
        model, tokenizer, manager, wanted.foreign, context=context, language=wanted.language, limit=wanted.limit, shots=wanted.shots,
        cache=cache, say=say,
    )  # fmt: skip
    measured.figures += found.figures
    measured.harness = found.raw
    if found.cut:
        measured.notes.append(
            f"{found.cut:,} of lm-eval's requests are longer than {context} tokens and lost their beginning"
        )
