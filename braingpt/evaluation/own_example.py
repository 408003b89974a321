"""No item of a task of lm-evaluation-harness stands among its own examples.

The harness leaves an item out of its examples only where the settings name the same split for both. A task
whose YAML names the test split alone, or one split under two names, shows an item its own answer: a model
that copies then answers everything. Here an item is known by what the model reads of it, its text, its
choices and its target, so that equal rows count as the same item. Draws without the item stay as the harness
makes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm_eval.api.task import ConfigurableTask  # pyright: ignore[reportMissingImports]

from braingpt.errors import UserError


@contextmanager
def own_examples_left_out() -> Iterator[None]:
    """Leave each item out of its own examples inside the `with`, for all tasks.

    Raises:
        UserError: A task has too few other items for the number of examples.
    """
    tasks: Any = ConfigurableTask
    original = tasks.fewshot_context

    def fewshot_context(task: Any, doc: Any, num_fewshot: int = 0, *arguments: Any, **more: Any) -> Any:
        sampler: Any = getattr(task, "sampler", None)
        # Before 0.4.10 the harness's samplers had no `df`, and left the item out themselves.
        if not num_fewshot or getattr(sampler, "df", None) is None:
            return original(task, doc, num_fewshot, *arguments, **more)
        draw = sampler.sample
        sampler.sample = lambda n, eval_doc=None, *a, **b: _drawn(task, draw, doc, n, eval_doc, *a, **b)
        try:
            return original(task, doc, num_fewshot, *arguments, **more)
        finally:
            del sampler.sample

    tasks.fewshot_context = fewshot_context
    try:
        yield
    finally:
        tasks.fewshot_context = original


def _drawn(task: Any, draw: Any, doc: Any, count: int, eval_doc: Any, *arguments: Any, **more: Any) -> Any:
    """The sampler's draw, or another one from the other items where the first holds the item."""
    sampler = draw.__self__
    # The harness draws one more where it leaves the item out itself.
    if count + (eval_doc is not None) <= len(sampler.df):
        drawn = draw(count, eval_doc, *arguments, **more)
        if not any(_same(task, other, doc) for other in drawn):
            return drawn
    everything = sampler.df
    others = [other for other in everything if not _same(task, other, doc)]
    if len(others) < count:
        raise UserError(
            f"task '{task.config.task}' has only {len(others)} other items as examples of an item, not the "
            f"{count} asked for; use fewer --shots"
        )
    sampler.df = others
    try:
        return draw(count, None, *arguments, **more)
    finally:
        sampler.df = everything


def _same(task: Any, example: Any, doc: Any) -> bool:
    """Whether an example is the item: the same row, or the same text, choices and target."""
    if example == doc:
        return True
    shown = task.fewshot_cfg
    if task.doc_to_text(example, shown.doc_to_text) != task.doc_to_text(doc):
        return False
    if task.doc_to_target(example, shown.doc_to_target) != task.doc_to_target(doc):
        return False
    if not task.config.doc_to_choice or not shown.doc_to_choice:
        return True
    return task.doc_to_choice(example, shown.doc_to_choice) == task.doc_to_choice(doc)
