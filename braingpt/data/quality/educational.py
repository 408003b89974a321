"""Educational value: scores that come with the source where there are any, else a small classifier's.

The classifier is linear: the mean over a document's tokens of a weight per token, then a sigmoid; 1 is like
the educational side of the training texts. The shipped classifier knows Korean only and separates
encyclopedia and manuals from film reviews (docs/results/quality-filters.md), so the rule is off unless asked
for. `scripts/train_educational.py` trains one on text of your own.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braingpt.data.quality import config as settings
from braingpt.data.quality.arrays import check, read_arrays, reading
from braingpt.data.quality.config import bound_of
from braingpt.utils.atomic_write import write_atomically

SHIPPED = Path(__file__).parent.parent.parent / "assets" / "educational.npz"


class Classifier:
    """Weights by language over the ids of one tokenizer."""

    def __init__(self, path: Path) -> None:
        with reading(path, "a classifier of scripts/train_educational.py"):
            arrays = read_arrays(path)
            self.fingerprint = str(check("fingerprint", arrays.pop("fingerprint"), (), "U"))
            length = max((one.size for one in arrays.values()), default=0)
            self._weights = {
                key: check(key, one, (max(2, length),), "f").astype(np.float32) for key, one in arrays.items()
            }

    def languages(self) -> list[str]:
        """Languages that the classifier knows."""
        return sorted(self._weights)

    def score(self, language: str, ids: Sequence[int] | np.ndarray) -> float:
        """From 0 to 1. The last weight of a language is the bias; the rest are by token."""
        weights_V = self._weights[language]
        logit = float(weights_V[np.asarray(ids)].mean() + weights_V[-1])
        return 1 / (1 + float(np.exp(-np.clip(logit, -30, 30))))

    @staticmethod
    def save(path: Path, fingerprint: str, weights: dict[str, np.ndarray]) -> None:
        """Write float16 weights of (vocab + 1,) by language."""
        arrays: dict[str, Any] = {language: one.astype(np.float16) for language, one in weights.items()}
        raw = io.BytesIO()
        np.savez_compressed(raw, fingerprint=np.array(fingerprint), **arrays)
        write_atomically(path, raw.getvalue())


class Educational:
    """The rule: scores of the source below their least value drop a document; without any, the classifier
    decides where it is on.
    """

    def __init__(self, values: settings.Educational) -> None:
        self._values = values
        self.classifier = (
            Classifier(Path(values.model) if values.model else SHIPPED) if values.classifier else None
        )

    def drops(self, language: str, ids: Sequence[int] | np.ndarray, scores: dict[str, float] | None) -> bool:
        """Whether the classifier finds a document of too little value.

        A document with scores of its source passes, and one in a language the classifier does not know.
        """
        least = self._values.classifier
        if not self.classifier or not least or not len(ids) or self._known(scores):
            return False
        if language not in self.classifier.languages():
            return False
        return self.classifier.score(language, ids) < bound_of(least, language)

    def drops_by_scores(self, scores: dict[str, float] | None) -> bool:
        """Whether a score of the source lies below what is asked."""
        return any(score < self._values.scores[name] for name, score in self._known(scores).items())

    def _known(self, scores: dict[str, float] | None) -> dict[str, float]:
        """Those of a document's scores that the rule has a least value for."""
        return {name: score for name, score in (scores or {}).items() if name in self._values.scores}
