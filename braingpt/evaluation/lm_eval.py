"""Tasks of EleutherAI's lm-evaluation-harness, answered by our models: `loglikelihood`,
`loglikelihood_rolling` and `generate_until` of its `LM`.

Texts begin with the marker of their language, as in training. Each answer is written to a SQLite file of the
harness's own cache as soon as it is known, under the hash of the model's weights and settings. So the same
command after an interruption continues where it stopped, and another list of tasks reuses known answers.

Tasks need no network where their data are local: a YAML file in the harness's form, in a folder given as
`files`, with `dataset_path: json` and `dataset_kwargs: {data_files: ...}`. Code in such a folder runs only
where the user trusts it (`task_files`).

Written for lm-eval 0.4.9 to 0.4.13, an optional package: imported only when one of its tasks is asked for.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lm_eval.evaluator as evaluator  # pyright: ignore[reportMissingImports]
import numpy as np
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

from braingpt.errors import Failure, UserError, did_you_mean
from braingpt.evaluation.likelihood import BATCH_TOKENS, Pair, encode_pair, likelihoods
from braingpt.evaluation.own_example import own_examples_left_out
from braingpt.evaluation.task_files import check_no_code, sandboxed_templates
from braingpt.evaluation.uncertainty import Figure
from braingpt.inference.engine import generate_batch
from braingpt.inference.sampling import SamplingOptions
from braingpt.inference.text_stream import non_text_tokens
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer

# Tokens of an answer where the task names no limit.
NEW_TOKENS = 256


class HarnessModel(LM):
    """One of our models as the harness asks it.

    Args:
        model: The model that answers.
        tokenizer: The model's vocabulary.
        context: Tokens that the model reads at once, at most.
        language: Language of all requests; None: detected in each.
        on_progress: Receives how many requests of a kind are answered.

    Attributes:
        cut: Requests that did not fit and lost their beginning.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        context: int,
        language: str | None = None,
        on_progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.context, self.language = context, language
        self.on_progress = on_progress
        self.cut = 0

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(nats, whether greedy decoding gives it) of each continuation after its context."""
        pairs = [
            encode_pair(self.tokenizer, context, continuation, self.language)
            for context, continuation in _args(requests)
        ]
        answers: list[Any] = [None] * len(pairs)
        for done, found in enumerate(likelihoods(self.model, pairs, self.context), 1):
            self.on_progress(f"answers {done:,} of {len(pairs):,}")
            answers[found.index] = (found.nats, found.greedy)
            self.cut += found.cut > 0
            self.cache_hook.add_partial("loglikelihood", requests[found.index].args, answers[found.index])
        return answers

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Nats of whole texts: each token once, in windows that do not overlap.

        A later window begins with the last token of the window before it.
        """
        answers = []
        for done, request in enumerate(requests, 1):
            self.on_progress(f"texts {done:,} of {len(requests):,}")
            (text,) = request.args
            (marker, *_), ids = encode_pair(self.tokenizer, "", text, self.language) if text else ([0], [])
            starts = range(0, len(ids), self.context)
            windows = [
                Pair([ids[start - 1] if start else marker], ids[start : start + self.context])
                for start in starts
            ]
            answers.append(sum(found.nats for found in likelihoods(self.model, windows, self.context)))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answers[-1])
        return answers

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Text that the model generates after each context, up to the first of the request's stop strings."""
        prompts = [
            [*encode_pair(self.tokenizer, context, " ", self.language).context]
            for context, _ in _args(requests)
        ]
        answers = [""] * len(requests)
        groups, done = defaultdict(list), 0
        for index, (_, settings) in enumerate(_args(requests)):
            groups[repr(settings)].append(index)
        for group in groups.values():
            group.sort(key=lambda i: -len(prompts[i]))
            while group:
                rows = max(1, BATCH_TOKENS // min(self.context, len(prompts[group[0]])))
                batch, group = group[:rows], group[rows:]
                done += len(batch)
                self.on_progress(f"writing {done:,} of {len(requests):,}")
                written = self._generate([prompts[i] for i in batch], requests[batch[0]].args[1])
                for index, text in zip(batch, written, strict=True):
                    answers[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return answers

    def _generate(self, prompts: list[list[int]], settings: dict[str, Any]) -> list[str]:
        """Answers to prompts that share the harness's settings."""
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else [text for text in until if text]
        new = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or NEW_TOKENS)
        longest = max(1, self.context - new)
        self.cut += sum(len(prompt) > longest for prompt in prompts)
        prompts = [
            prompt if len(prompt) <= longest else [prompt[0], *prompt[1:][-(longest - 1) :]][:longest]
            for prompt in prompts
        ]
        drawn = bool(settings.get("do_sample"))
        temperature = float(settings.get("temperature") or 1.0) if drawn else 0.0
        sampling: SamplingOptions = {"temperature": temperature, "seed": 0}
        for key in ("top_k", "top_p", "min_p", "repetition_penalty"):
            # The penalty changes the likeliest token too.
            if settings.get(key) and (drawn or key == "repetition_penalty"):
                sampling[key] = settings[key]
        ended = lambda ids: any(stop in self.tokenizer.decode(ids) for stop in until)  # noqa: E731
        answers = generate_batch(
            self.model,
            prompts,
            new,
            stop=[self.tokenizer.eot],
            banned=non_text_tokens(self.tokenizer),
            finished=ended,
            **sampling,
        )
        return [_before(self.tokenizer.decode(ids), until) for ids in answers]


def _args(requests: Sequence[Any]) -> list[Any]:
    return [request.args for request in requests]


def _before(text: str, until: list[str]) -> str:
    """The text up to the first of the stop strings in it."""
    return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]


@dataclass
class HarnessResult:
    """The harness's measurements."""

    figures: list[Figure]
    # Requests that did not fit and lost their beginning.
    cut: int
    # The harness's own table, plain values for JSON.
    raw: dict[str, Any] = field(default_factory=dict)


def open_tasks(
    names: Sequence[str], known: Sequence[str] = (), files: Path | None = None, trust_code: bool = False
) -> TaskManager:
    """Open the harness's list of tasks.

    Args:
        names: Tasks asked for.
        known: Tasks of our own, for the hint at a misspelt name.
        files: A folder with YAML files of further tasks.
        trust_code: Whether code in the folder may run.

    Returns:
        The list, which holds every name.

    Raises:
        UserError: A name is in neither list, or the folder has code that is not trusted.
    """
    if files is not None:
        if not trust_code:
            check_no_code(files)
        own = TaskManager(include_path=str(files), include_defaults=False)
        # Reading the harness's own list takes ten seconds.
        if all(map(own.match_tasks, ([name] for name in names))):
            return own
    manager = TaskManager(include_path=None if files is None else str(files))
    for name in names:
        if not manager.match_tasks([name]):
            close = did_you_mean(name, [*known, *manager.all_tasks])
            listed = (
                close
                if "did you mean" in close
                else f"; {', '.join(known)}, or one of lm-eval's (lm-eval ls tasks)"
            )
            raise UserError(f"unknown task '{name}'{listed}")
    return manager


def run_tasks(
    model: LanguageModel,
    tokenizer: Tokenizer,
    manager: TaskManager,
    names: Sequence[str],
    *,
    context: int,
    language: str | None = None,
    limit: int | None = None,
    shots: int | None = None,
    cache: Path | None = None,
    sandboxed: bool = False,
    on_progress: Callable[[str], None] = lambda what: None,
) -> HarnessResult:
    """Measure tasks of the harness.

    Args:
        model: The model that answers.
        tokenizer: The model's vocabulary.
        manager: From `open_tasks`.
        names: Tasks to measure.
        context: Tokens that the model reads at once, at most.
        language: Language of all requests; None: detected in each.
        limit: Items of each task, at most.
        shots: Examples before each item; None: the task's own number.
        cache: File that keeps the answers, without its ending; None: answers are not kept.
        sandboxed: Whether templates are foreign, so that they may not reach for Python's insides.
        on_progress: Receives what is being answered.

    Returns:
        Figures with their items, and the harness's own table.

    Raises:
        UserError: The cache's folder is a file, a task has too few items for the examples, or a template of a
            foreign task reaches for Python's insides.
        Failure: A task's data cannot be loaded, or the harness fails.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # The harness asks git, which complains on the terminal outside of a repository.
    evaluator.get_git_commit_hash = lambda: None
    adapter = HarnessModel(model, tokenizer, context, language, on_progress)
    if cache is not None:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"--cache {cache.parent} is a file; name a folder") from None
    try:
        with sandboxed_templates() if sandboxed else nullcontext(), own_examples_left_out():
            found: Any = evaluator.simple_evaluate(
                adapter,
                tasks=_expanded(manager, names),
                task_manager=manager,
                num_fewshot=shots,
                limit=limit,
                log_samples=True,
                bootstrap_iters=200,
                use_cache=None if cache is None else str(cache),
            )
    except (UserError, Failure, KeyboardInterrupt):
        raise
    except OSError as error:
        # Errors of `datasets` and of the hub are among them.
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise Failure(f"cannot load the data of {', '.join(names)}{offline}: {error}") from error
    except Exception as error:
        raise Failure(f"lm-eval could not run {', '.join(names)}: {type(error).__name__}: {error}") from error
    raw = {
        "results": found["results"],
        "shots": found["n-shot"],
        "items": found["n-samples"],
        "versions": found["versions"],
    }
    figures = [figure for task in found["results"] for figure in _figures(found, task)]
    return HarnessResult(figures, adapter.cut, _plain(raw))


def _expanded(manager: TaskManager, names: Sequence[str]) -> list[Any]:
    """The names, with patterns such as `mmlu_*` as the names that they match."""
    known = set(manager.all_tasks)
    return [one for name in names for one in ([name] if name in known else manager.match_tasks([name]))]


def _figures(found: dict[str, Any], task: str) -> list[Figure]:
    """A figure for each metric of a task.

    Where the metric is the mean of the task's items, the items are the units; else the figure holds the
    harness's value and standard error.
    """
    figures, samples = [], found.get("samples", {}).get(task, [])
    better = found.get("higher_is_better", {}).get(task, {})
    for key, value in found["results"][task].items():
        metric, _, chosen = key.partition(",")
        if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        lower = better.get(metric) is False
        own = [
            s[metric]
            for s in sorted(samples, key=lambda s: s["doc_id"])
            if s.get("filter", "none") == chosen and metric in s
        ]
        name = metric if chosen == "none" else f"{metric} ({chosen})"
        if (
            own
            and all(isinstance(one, int | float | np.number) for one in own)
            and np.isclose(np.mean(own), value, atol=1e-9)
        ):
            figures.append(
                Figure(task, "-", name, np.array(own, float), np.ones(len(own)), lower_is_better=lower)
            )
        elif own and metric == "bits_per_byte":
            # Each item is (nats, bytes) of one text.
            nats, size = np.array(own, float).T
            figures.append(Figure(task, "-", name, -nats / np.log(2), size, lower_is_better=True))
        else:
            error = found["results"][task].get(f"{metric}_stderr,{chosen}")
            given = float(value), error if isinstance(error, float) and np.isfinite(error) else None
            figures.append(
                Figure(task, "-", name, np.empty(0), np.empty(0), lower_is_better=lower, given=given)
            )
    return figures


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    return float(value) if np.isfinite(value) else None
