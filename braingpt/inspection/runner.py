"""Everything `inspect-sparsity` finds out about one checkpoint and one text, and how it grew over a run's
checkpoints.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.errors import UserError
from braingpt.inspection.dense_twin import DenseComparison, compare_with_twin
from braingpt.inspection.sparsity import SparsityReport, sparsity_of_windows, token_windows
from braingpt.inspection.specialisation import Specialisation, labels, loads, specialisation
from braingpt.inspection.trace import Trace, trace, work_per_token

# windows read at once
ROWS = 8


@dataclass
class TokenWindows:
    """Windows (B, L) of tokens, each of one language, or of None where the text itself tells."""

    windows: list[Tensor]
    languages: list[str | None]

    @classmethod
    def of(cls, parts: Sequence[tuple[str | None, list[int]]], context: int) -> "Text":
        """From (language, tokens); what does not fill a window of `context` tokens is a window of its own.

        UserError where there are none.
        """
        cut = [(language, window) for language, ids in parts for window in token_windows(ids, context, ROWS)]
        if not cut:
            raise UserError("there are no tokens to look at")
        return cls([window for _, window in cut], [language for language, _ in cut])

    def starts(self) -> dict[str, int]:
        """The first token of each language's windows, "text" where the text itself tells."""
        found, at = {}, 0
        for window, language in zip(self.windows, self.languages, strict=True):
            found.setdefault(language or "text", at)
            at += window.numel()
        return found


@dataclass
class Inspection:
    """What was found. starts: of `TokenWindows`; labels: of each token; loads: by language, layer and column; spent:
    (N,) of each token; achieved: empty if not measured.
    """

    report: SparsityReport
    trace: Trace
    starts: dict[str, int]
    work_per_token: Tensor
    labels: dict[str, list[str]]
    specialisation: list[Specialisation]
    loads: dict[str, list[list[float]]]
    compare_with_twin: list[DenseComparison]

    def depths(self) -> list[int]:
        """How many tokens went through 0, 1, ... all layers."""
        return torch.bincount(self.trace.depth(), minlength=len(self.trace.arrived) + 1).tolist()

    def summary(self) -> dict[str, float]:
        """The lowest, median and highest share spent on a token."""
        return {
            "lowest": float(self.spent.min()),
            "median": float(self.spent.median()),
            "highest": float(self.spent.max()),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of the tokens sums alone."""
        figures = {
            "achieved": [asdict(one) for one in self.achieved],
            "specialisation": [asdict(one) for one in self.told],
        }
        return (
            self.report.as_dict()
            | figures
            | {"depths": self.depths(), "loads": self.loads, "spent": self.summary()}
        )


def inspect_model(
    model: nn.Module,
    tokenizer: Any,
    text: TokenWindows,
    rounds: int,
    say: Callable[[str], None] = lambda what: None,
) -> Inspection:
    """Count, follow and, with `rounds` > 0, time the model on the text. `say`: told what is next."""
    say("counting what the layers do")
    report = sparsity_of_windows(model, text.windows)
    say("following the tokens")
    found, labelled = trace(model, text.windows), labels(tokenizer, text.windows, text.languages)
    say(f"{rounds} rounds beside a dense twin")
    timed = compare_with_twin(model, text.windows[0][0].tolist(), report.context, rounds) if rounds else []
    say("asking what the columns tell")
    by_language = loads(found, labelled["language"])
    return Inspection(
        report,
        found,
        text.starts(),
        work_per_token(model, found, report.context),
        labelled,
        specialisation(found, labelled),
        by_language,
        timed,
    )


def sparsity_over_training(
    models: Iterable[tuple[int, nn.Module]], text: TokenWindows
) -> Iterator[dict[str, Any]]:
    """The sums over layers of each (step, model) on the same text."""
    for step, model in models:
        yield {"step": step, **asdict(sparsity_of_windows(model, text.windows).total)}
