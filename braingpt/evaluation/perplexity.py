"""How well a model predicts text: loss, perplexity and bits per byte, by language.

Bits per byte compare across tokenizers; loss and perplexity do not. Bits per byte are the nats of all tokens
that represent at least one byte of UTF-8, over ln 2, over those bytes. Markers and document ends, which are
not text, are left out (as in nanochat). Loss and perplexity are means over every predicted token, markers and
ends included, so they continue the training curve.

Each window is a unit of its own (`Scores.figures`), so that intervals and comparisons between models can be
made from windows.

Legend: B rows, L positions, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braingpt.data.batches.batches import validation_windows
from braingpt.data.quality.clean import clean
from braingpt.data.shards.reader import ShardSet
from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.evaluation.uncertainty import Figure, pooled
from braingpt.kernels.cross_entropy import IGNORED
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import check_valid


@dataclass
class Score:
    """Sums over scored tokens, and the figures they give. A figure with nothing to divide by is None."""

    tokens: int = 0
    # UTF-8 bytes of the tokens that are text.
    bytes: int = 0
    # Nats of all tokens.
    nats: float = 0.0
    # Nats of the tokens that are text.
    text_nats: float = 0.0

    @property
    def loss(self) -> float | None:
        """Nats a token."""
        return self.nats / self.tokens if self.tokens else None

    @property
    def perplexity(self) -> float | None:
        """exp(loss); infinite where that does not fit a float."""
        if self.loss is None:
            return None
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Bits a byte of UTF-8."""
        return self.text_nats / math.log(2) / self.bytes if self.bytes else None

    def add(self, other: "Score") -> None:
        """Add the sums of another score."""
        self.tokens += other.tokens
        self.bytes += other.bytes
        self.nats += other.nats
        self.text_nats += other.text_nats

    def as_dict(self) -> dict[str, float | int | None]:
        """Tokens, bytes and the three figures; None where a figure is not finite, which JSON cannot hold."""
        figures = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        finite = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in figures.items()
        }
        return {"tokens": self.tokens, "bytes": self.bytes, **finite}


@dataclass
class Scores(Score):
    """The pooled score of all languages, and each language's own."""

    by_language: dict[str, Score] = field(default_factory=dict)
    # Windows of each language, in the order read.
    windows: dict[str, list[Score]] = field(default_factory=dict)

    def count(self, language: str, windows: list[Score]) -> None:
        """Add windows to the language's and to the pool."""
        self.windows.setdefault(language, []).extend(windows)
        for score in windows:
            self.by_language.setdefault(language, Score()).add(score)
            self.add(score)

    def figures(self) -> list[Figure]:
        """Bits per byte and loss of each language and, where there are several, of all; units are windows."""
        found = []
        for metric, amount, weight in (
            ("bits_per_byte", lambda s: s.text_nats / math.log(2), "bytes"),
            ("loss", lambda s: s.nats, "tokens"),
        ):
            parts = [
                Figure(
                    "perplexity",
                    language,
                    metric,
                    np.array([amount(s) for s in scores]),
                    np.array([getattr(s, weight) for s in scores], dtype=float),
                    lower_is_better=True,
                )
                for language, scores in self.windows.items()
            ]
            found += [*parts, *([pooled(parts)] if len(parts) > 1 else [])]
        return found

    def as_dict(self) -> dict[str, Any]:
        """The pool's figures and `by_language`."""
        return {
            **super().as_dict(),
            "by_language": {language: score.as_dict() for language, score in self.by_language.items()},
        }


def evaluate(
    model: nn.Module,
    shards: ShardSet,
    tokenizer: Tokenizer,
    *,
    context: int,
    windows: int,
    rows: int = 8,
    device: torch.device | str = "cpu",
    languages: Iterable[str] | None = None,
    reset_at_documents: bool = False,
) -> Scores:
    """Score the first validation windows of every language, the same ones every time.

    The caller's autocast setting applies.

    Args:
        model: The model to score; its device is `device`.
        shards: Prepared data with validation windows.
        tokenizer: The vocabulary of the shards.
        context: Tokens a window.
        windows: Windows of each language, at most.
        rows: Windows read at once.
        device: Where the model computes.
        languages: Only these; None: all.
        reset_at_documents: As the model was trained. A window then starts afresh at each document, and the
            first token of a document is not scored.

    Returns:
        The scores of each language and of all.

    Raises:
        UserError: The shards hold no validation window.
    """
    bytes_V = torch.from_numpy(np.asarray(tokenizer.token_bytes())).to(device)
    scores = Scores()
    for language in languages or shards.languages("validation"):
        for batch in validation_windows(
            shards, language, context, rows, windows, tokenizer.eot if reset_at_documents else None
        ):
            segments_BL = None if batch.segments_BL is None else batch.segments_BL.to(device)
            scores.count(
                language,
                score_rows(model, batch.ids_BL.to(device), batch.targets_BL.to(device), bytes_V, segments_BL),
            )
    if not scores.tokens:
        raise UserError(
            f"the data holds no validation window of {context} tokens; "
            "take a smaller context or prepare more data"
        )
    return scores


def evaluate_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    language: str | None = None,
    *,
    context: int = 512,
    rows: int = 8,
    device: torch.device | str = "cpu",
) -> Scores:
    """Score one text as a document: marker, text, end.

    Every token after the first is predicted exactly once, in windows that do not see each other.

    Args:
        model: The model to score; its device is `device`.
        tokenizer: The model's vocabulary.
        text: The text, which is cleaned as documents are in preparation.
        language: The text's language; None: detected, "?" where that fails.
        context: Tokens a window.
        rows: Windows read at once.
        device: Where the model computes.

    Returns:
        The score, under the text's language.

    Raises:
        UserError: The text is empty or not valid Unicode.
    """
    check_valid(text)
    text = clean(text)
    if not text:
        raise UserError("the text is empty; there is nothing to evaluate")
    ids = [*tokenizer.encode(text, language=language or "auto"), tokenizer.eot]
    names = {marker: name for name, marker in tokenizer.markers.items()}
    bytes_V = torch.from_numpy(np.asarray(tokenizer.token_bytes())).to(device)
    scores = Scores()
    for ids_BL, targets_BL in scoring_windows(ids, context, rows):
        scores.count(
            names.get(ids[0], "?"), score_rows(model, ids_BL.to(device), targets_BL.to(device), bytes_V)
        )
    return scores


def scoring_windows(ids: list[int], context: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a text into windows that predict every token but the first exactly once.

    Args:
        ids: The text's tokens.
        context: Tokens of a window.
        rows: Windows of a batch, at most.

    Yields:
        Ids and targets, (B, L) each; the last window is padded on the right.
    """
    starts = range(0, len(ids) - 1, context)
    for first in range(0, len(starts), rows):
        chunks = [ids[start : start + context + 1] for start in starts[first : first + rows]]
        length = max(map(len, chunks)) - 1
        ids_BL = torch.zeros(len(chunks), length, dtype=torch.int64)
        targets_BL = torch.full_like(ids_BL, IGNORED)
        for row, chunk in enumerate(chunks):
            ids_BL[row, : len(chunk) - 1] = torch.tensor(chunk[:-1])
            targets_BL[row, : len(chunk) - 1] = torch.tensor(chunk[1:])
        yield ids_BL, targets_BL


def score_rows(
    model: nn.Module, ids_BL: Tensor, targets_BL: Tensor, bytes_V: Tensor, segments_BL: Tensor | None = None
) -> list[Score]:
    """Score each row, with sums in float64.

    Args:
        model: The model to score.
        ids_BL: Tokens.
        targets_BL: What each position should predict; `IGNORED` is not scored.
        bytes_V: UTF-8 bytes that each token represents, 0 for specials, on the model's device.
        segments_BL: Number of each token's document; None: one document a row.
    """
    where = {} if segments_BL is None else {"segments_BL": segments_BL}
    with eval_mode(model):
        loss_BL = model(ids_BL, targets_BL, reduction="none", **where).loss.reshape(targets_BL.shape).double()
        scored_BL = targets_BL != IGNORED
        size_BL = bytes_V[targets_BL.clamp(min=0)] * scored_BL
        sums = (scored_BL, size_BL, loss_BL * scored_BL, loss_BL * (size_BL > 0))
        return [Score(*row) for row in zip(*(part_BL.sum(1).tolist() for part_BL in sums), strict=True)]
