"""The results of `inspect-sparsity` for a checkpoint and a text, and sparsity over a run's checkpoints."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.inspection.dense_twin import DenseComparison, compare_with_twin
from braingpt.inspection.head_use import HeadUse, head_use
from braingpt.inspection.sparsity import SparsityReport, sparsity_of_windows, token_windows
from braingpt.inspection.specialisation import Specialisation, labels, loads, specialisation
from braingpt.inspection.trace import Trace, trace, work_per_token
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer

# Windows read at once.
ROWS = 8


@dataclass
class TokenWindows:
    """A text as windows (B, L) of tokens, each of one language, or of None where the language is detected."""

    windows: list[Tensor]
    languages: list[str | None]

    @classmethod
    def of(cls, parts: Sequence[tuple[str | None, list[int]]], context: int) -> "TokenWindows":
        """Cut (language, tokens) into windows; tokens that fill no window of `context` are a shorter one.

        Raises UserError where there are no tokens.
        """
        cut = [(language, window) for language, ids in parts for window in token_windows(ids, context, ROWS)]
        if not cut:
            raise UserError("there are no tokens to inspect")
        return cls([window for _, window in cut], [language for language, _ in cut])

    def starts(self) -> dict[str, int]:
        """The first token of each language's windows; "text" where the language is detected."""
        found, at = {}, 0
        for window, language in zip(self.windows, self.languages, strict=True):
            found.setdefault(language or "text", at)
            at += window.numel()
        return found


@dataclass
class Inspection:
    """What inspection found about one checkpoint on one text of N tokens."""

    report: SparsityReport
    trace: Trace
    # The first token of each language's windows.
    starts: dict[str, int]
    # (N,) the arithmetic spent on each token, over that of a token that passes all layers.
    spent: Tensor
    # Language, script and place of each token.
    labels: dict[str, list[str]]
    specialisation: list[Specialisation]
    # Load by language, layer and column.
    loads: dict[str, list[list[float]]]
    # Empty where not measured.
    achieved: list[DenseComparison]
    # None for a head that reads the whole vocabulary.
    head: HeadUse | None

    def depths(self) -> list[int]:
        """How many tokens passed 0, 1, ... all layers."""
        return torch.bincount(self.trace.depth(), minlength=len(self.trace.arrived) + 1).tolist()

    def summary(self) -> dict[str, float]:
        """The lowest, median and highest share spent on a token."""
        return {
            "lowest": float(self.spent.min()),
            "median": float(self.spent.median()),
            "highest": float(self.spent.max()),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: sums over the tokens, no values of single tokens."""
        figures = {
            "achieved": [asdict(one) for one in self.achieved],
            "specialisation": [asdict(one) for one in self.specialisation],
        }
        return (
            self.report.as_dict()
            | figures
            | {"depths": self.depths(), "loads": self.loads, "spent": self.summary()}
            | {"head": asdict(self.head) if self.head else None}
        )


def inspect_model(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: TokenWindows,
    rounds: int,
    on_progress: Callable[[str], None] = lambda stage: None,
) -> Inspection:
    """Count, trace and time a model on a text.

    Args:
        model: Any of the three architectures.
        tokenizer: The model's vocabulary.
        text: What the model reads.
        rounds: Rounds beside a dense twin; 0: no timing.
        on_progress: Receives the name of each stage before it begins.

    Returns:
        Sparsity, traces, specialisation of columns and, where timed, the comparison with the twin.
    """
    on_progress("counting what the layers do")
    report = sparsity_of_windows(model, text.windows)
    on_progress("tracing the tokens")
    traced = trace(model, text.windows)
    labelled = labels(tokenizer, text.windows, text.languages)
    on_progress(f"timing {rounds} rounds beside a dense twin")
    first_window = text.windows[0][0].tolist()
    achieved = compare_with_twin(model, first_window, report.context, rounds) if rounds else []
    on_progress("counting what the head reads")
    head = head_use(model, text.windows)
    on_progress("measuring what the columns are for")
    return Inspection(
        report=report,
        trace=traced,
        starts=text.starts(),
        spent=work_per_token(model, traced, report.context),
        labels=labelled,
        specialisation=specialisation(traced, labelled),
        loads=loads(traced, labelled["language"]),
        achieved=achieved,
        head=head,
    )


def sparsity_over_training(
    models: Iterable[tuple[int, LanguageModel]], text: TokenWindows
) -> Iterator[dict[str, Any]]:
    """The sparsity of several checkpoints on the same text.

    Args:
        models: Step and model of each checkpoint.
        text: What the models read.

    Yields:
        The step and the sum over layers of each model, as plain values for JSON.
    """
    for step, model in models:
        yield {"step": step, **asdict(sparsity_of_windows(model, text.windows).total)}
