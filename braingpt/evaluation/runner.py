"""The measurements of `braingpt eval` on one checkpoint: perplexity, our own tasks, and the harness's tasks,
all as figures with their units.

Figures of two checkpoints measured by one `EvalRequest` pair unit by unit (`uncertainty.compare_all`).
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braingpt.data.shards.reader import ShardSet
from braingpt.errors import UserError, did_you_mean
from braingpt.evaluation import perplexity
from braingpt.evaluation.tasks.in_context import ITEM_TASKS, ITEMS
from braingpt.evaluation.tasks.in_context import measure as measure_items
from braingpt.evaluation.tasks.recall import LEVELS, recall_figures
from braingpt.evaluation.tasks.vocabulary import KINDS
from braingpt.evaluation.uncertainty import Figure
from braingpt.model.lm import LanguageModel
from braingpt.recipes import Recipe
from braingpt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

BUILT_IN = ("perplexity", "recall", *ITEM_TASKS)


@dataclass(frozen=True)
class EvalRequest:
    """Which tasks to measure, on what."""

    tasks: tuple[str, ...] = ("perplexity",)
    # Perplexity: a text, or else folders of prepared data (none: those of the training).
    text: str | None = None
    folders: tuple[Path, ...] = ()
    language: str | None = None
    # None: the context of the model's training.
    context: int | None = None
    # Validation windows of each language, for perplexity.
    windows: int = 256
    # Items of each task, at most.
    limit: int | None = None
    # For the harness: examples before each item, a folder with files of further tasks, a folder that keeps
    # answers.
    shots: int | None = None
    files: Path | None = None
    # Whether code in that folder may run.
    trust_code: bool = False
    cache: Path | None = None

    @property
    def harness_tasks(self) -> tuple[str, ...]:
        """Tasks that belong to lm-evaluation-harness."""
        return tuple(task for task in self.tasks if task not in BUILT_IN)


@dataclass
class EvalResult:
    """What was measured of one checkpoint."""

    # In the order of the tasks.
    figures: list[Figure] = field(default_factory=list)
    # The scores from which the figures of perplexity come; None where perplexity was not asked for.
    scores: perplexity.Scores | None = None
    # Notes that a reader of the figures needs, one line each.
    notes: list[str] = field(default_factory=list)
    # The harness's own table.
    harness: dict[str, Any] | None = None


def check_tasks(request: EvalRequest) -> "TaskManager | None":
    """Open the harness's tasks, where the request names some.

    Args:
        request: The request.

    Returns:
        The harness's tasks; None where the request names none of them.

    Raises:
        UserError: A task is unknown, the harness is not installed, or the folder of task files is wrong.
    """
    names = request.harness_tasks
    if not names:
        if request.files is not None:
            raise UserError("--task-files names a folder of lm-eval tasks, but --tasks names none of them")
        return None
    if request.files is not None and not request.files.is_dir():
        raise UserError(f"there is no folder --task-files {request.files}")
    if importlib.util.find_spec("lm_eval") is None:
        hint = did_you_mean(names[0], BUILT_IN)
        raise UserError(
            f"unknown task '{names[0]}'{hint} (lm-eval's tasks need: pip install 'braingpt[eval]')"
        )
    return _harness().open_tasks(names, BUILT_IN, request.files, request.trust_code)


def _harness() -> Any:
    """Our module of the harness, which needs the optional package lm-eval."""
    return importlib.import_module("braingpt.evaluation.lm_eval")


def measure(
    model: LanguageModel,
    tokenizer: Tokenizer,
    recipe: Recipe,
    request: EvalRequest,
    manager: "TaskManager | None",
    key: str,
    on_progress: Callable[[str], None] = lambda task: None,
) -> EvalResult:
    """Measure all tasks of a request on one model.

    Args:
        model: The model.
        tokenizer: The model's vocabulary.
        recipe: The recipe the model was trained by.
        request: What to measure.
        manager: From `check_tasks`.
        key: Name under which the harness's answers are kept.
        on_progress: Receives the name of each task before it begins.
    """
    result, context = EvalResult(), request.context or recipe.train.context
    for task in request.tasks:
        if task == "perplexity":
            on_progress("perplexity")
            result.scores = _perplexity(model, tokenizer, recipe, request, context, result.notes)
            result.figures += result.scores.figures()
        elif task == "recall":
            for pairs, length in LEVELS:
                on_progress(f"recall {pairs} in {length}")
                result.figures += recall_figures(model, length, pairs)
        elif task in ITEM_TASKS:
            for language in _languages(tokenizer, request.language):
                on_progress(f"{task} {language}")
                items = min(request.limit or ITEMS, ITEMS)
                figure = measure_items(model, tokenizer, task, language, context, items)
                result.figures.append(figure)
                if cut := figure.about["cut"]:
                    result.notes.append(
                        f"{task} {language}: {cut} texts are longer than {context} tokens and were cut"
                    )
    if request.harness_tasks:
        on_progress(", ".join(request.harness_tasks))
        _measure_harness_tasks(model, tokenizer, request, manager, context, key, result, on_progress)
    return result


def _perplexity(
    model: LanguageModel,
    tokenizer: Tokenizer,
    recipe: Recipe,
    request: EvalRequest,
    context: int,
    notes: list[str],
) -> perplexity.Scores:
    """The scores of the text or the data asked for; what is not measured is added to `notes`."""
    if request.text is not None:
        return perplexity.evaluate_text(
            model, tokenizer, request.text, request.language, context=context, device=model.device
        )
    folders = request.folders or tuple(Path(folder) for folder in recipe.data.folders)
    shards = ShardSet.open(folders, tokenizer)
    if line := shards.unmeasured(context):
        notes.append(line)
    return perplexity.evaluate(
        model,
        shards,
        tokenizer,
        context=context,
        windows=request.windows,
        device=model.device,
        reset_at_documents=recipe.data.reset_at_documents,
    )


def _languages(tokenizer: Tokenizer, language: str | None) -> Sequence[str]:
    """Languages of our own tasks that the model has read, or the one asked for."""
    if language is not None and language not in KINDS:
        raise UserError(f"braingpt's own tasks are in {' and '.join(KINDS)}, not in '{language}'")
    return [language] if language else [language for language in KINDS if language in tokenizer.markers]


def _measure_harness_tasks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    request: EvalRequest,
    manager: "TaskManager | None",
    context: int,
    key: str,
    result: EvalResult,
    on_progress: Callable[[str], None],
) -> None:
    """Add the figures of the harness's tasks to `result`."""
    answers = f"{key}-{context}-{request.language or 'auto'}"
    found = _harness().run_tasks(
        model,
        tokenizer,
        manager,
        request.harness_tasks,
        context=context,
        language=request.language,
        limit=request.limit,
        shots=request.shots,
        cache=None if request.cache is None else request.cache / answers,
        sandboxed=request.files is not None and not request.trust_code,
        on_progress=on_progress,
    )
    result.figures += found.figures
    result.harness = found.raw
    if found.cut:
        result.notes.append(
            f"{found.cut:,} of lm-eval's requests are longer than {context} tokens and lost their beginning"
        )
