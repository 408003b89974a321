"""Perplexity filter: how likely a document's tokens are to a small trigram model of clean text in its
language.

The model works on the project's own token ids, so nothing is tokenized twice. Per language it holds the
counts of single tokens and two hashed tables, of the most frequent pairs and triples; a slot of 16 bits keeps
11 bits of the key's hash, which make a false hit rare (1 in 2,048), and the count in half steps of its
logarithm. p(c | a, b) = .05 p(c) + .35 n(bc)/n(b) + .60 n(abc)/n(ab).

The score is bits / (tokens^(1-x) bytes^x), x = BYTES. Per token, text with shuffled words scores high and
text with shuffled characters does not, because its many short tokens are frequent; per byte it is the other
way round (docs/results/quality-filters.md).
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braingpt.data.quality import config as settings
from braingpt.data.quality.arrays import check, reading
from braingpt.data.quality.config import bound_of
from braingpt.utils.atomic_write import write_atomically

SHIPPED = Path(__file__).parent.parent.parent / "assets" / "perplexity.npz"
# Weights of the counts of one, two and three tokens.
WEIGHTS = (0.05, 0.35, 0.60)
# A table has 2 ** BITS slots.
BITS = 18
# The exponent of bytes in the score; that of tokens is what it lacks to 1.
BYTES = 0.5
# Tokens looked up together, few enough for the processor's cache.
BLOCK = 1 << 14
# A long document is scored in so many stretches, spread evenly.
STRETCHES = 4
# Percentiles of clean text whose scores the model keeps.
PERCENTILES = np.concatenate([np.arange(50, 99, 1.0), np.arange(99, 100, 0.05)])

# The 11 bits of a slot that hold a part of the key's hash.
_CHECK = 2047
# Counts that the other five bits stand for.
_COUNTS = np.concatenate([[0.0], 2 ** (np.arange(31) / 2)]).astype(np.float32)


class Trigrams:
    """The model of one language. Built by `fit`; `score` gives the score of a sequence of ids."""

    def __init__(
        self, ones_V: np.ndarray, twos_S: np.ndarray, threes_S: np.ndarray, bytes_V: np.ndarray
    ) -> None:
        """`ones_V`: counts of tokens, float32.

        `twos_S`, `threes_S`: uint16 tables. `bytes_V`: bytes of each token.
        """
        self.vocab = len(ones_V)
        self.twos_S, self.threes_S, self.bytes_V = twos_S, threes_S, bytes_V.astype(np.int32)
        self.ones_V = ones_V
        self._least_V = (WEIGHTS[0] * (ones_V + 0.5) / (ones_V.sum() + 0.5 * self.vocab)).astype(np.float32)
        self._context_V = (WEIGHTS[1] / np.maximum(ones_V, 1)).astype(np.float32)

    @classmethod
    def fit(cls, ids_N: np.ndarray, bytes_V: np.ndarray, entries: int) -> "Trigrams":
        """From the ids of clean text; the `entries` most frequent pairs and triples are kept."""
        vocab = len(bytes_V)
        pairs = ids_N[:-1].astype(np.int64) * vocab + ids_N[1:]
        twos_S, threes_S = (_table(keys, entries) for keys in (pairs, pairs[:-1] * vocab + ids_N[2:]))
        return cls(np.bincount(ids_N, minlength=vocab).astype(np.float32), twos_S, threes_S, bytes_V)

    def score(self, ids_N: np.ndarray) -> float:
        """The score of three ids or more; the lower, the likelier the text."""
        return self.scores([ids_N])[0]

    def scores(self, texts: list[np.ndarray]) -> list[float]:
        """`score` of each: many are looked up together, since short ones cost more calls than arithmetic."""
        scores: list[float] = []
        ends = np.cumsum([len(ids_N) for ids_N in texts])
        while len(scores) < len(texts):
            first, before = len(scores), int(ends[len(scores) - 1]) if scores else 0
            last = max(first + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
            ids_N = np.concatenate(texts[first:last]).astype(np.uint64)
            bits_N, size_N = self._bits(ids_N), self.bytes_V.take(ids_N[2:].view(np.int64))
            start = 0
            for end in (ends[first:last] - before - 2).tolist():
                bits, size = float(bits_N[start:end].sum()), int(size_N[start:end].sum())
                scores.append(bits / (max(1, size) ** BYTES * (end - start) ** (1 - BYTES)))
                # The first two tokens of the next text have no two before them.
                start = end + 2
        return scores

    def _bits(self, ids_N: np.ndarray) -> np.ndarray:
        """float32 (N - 2,): bits of each token from the third on."""
        pairs_M = ids_N[:-1] * np.uint64(self.vocab)
        pairs_M += ids_N[1:]
        twos_M = _look_up(self.twos_S, pairs_M)
        triples_L = pairs_M[:-1] * np.uint64(self.vocab)
        triples_L += ids_N[2:]
        three_L = _look_up(self.threes_S, triples_L)
        last_L, middle_L = ids_N[2:].view(np.int64), ids_N[1:-1].view(np.int64)
        p_L = np.minimum(twos_M[1:] * self._context_V.take(middle_L), WEIGHTS[1])
        p_L += self._least_V.take(last_L)
        p_L += WEIGHTS[2] * three_L / np.maximum(np.maximum(twos_M[:-1], three_L), 1)
        return -np.log2(p_L)


class Perplexity:
    """The rule: a document is dropped whose score lies above the percentile of clean text of its language,
    and a margin.

    The margin is a share of the way from there to the score that 99 of 100 texts of shuffled characters
    exceed. Without one, a model whose clean text is narrow (here manuals, in four of the languages) drops
    ordinary prose.
    """

    def __init__(self, values: settings.Perplexity) -> None:
        self._values = values
        path = Path(values.model) if values.model else SHIPPED
        self.fingerprint, self._models, self._scores = load(path)
        self._limits: dict[str, float] = {}

    def drops(self, languages: Sequence[str], ids: Sequence[Sequence[int] | np.ndarray]) -> list[bool]:
        """Whether each document is too unlikely, given its language and ids.

        Languages without a model pass, and so do documents that are too short.
        """
        dropped = [False] * len(ids)
        for language in dict.fromkeys(languages):
            if language not in self._scores:
                continue
            numbers = [
                number
                for number, (other, one) in enumerate(zip(languages, ids, strict=True))
                if other == language and len(one) >= self._values.least
            ]
            limit = self._limit(language)
            samples = [sample(ids[number], self._values.tokens) for number in numbers]
            for number, score in zip(numbers, self._models(language).scores(samples), strict=True):
                dropped[number] = score > limit
        return dropped

    def _limit(self, language: str) -> float:
        if language not in self._limits:
            scores = self._scores[language]
            clean = float(np.interp(bound_of(self._values.percentile, language), PERCENTILES, scores[:-1]))
            self._limits[language] = clean + bound_of(self._values.margin, language) * max(
                0.0, float(scores[-1]) - clean
            )
        return self._limits[language]


def sample(ids: Sequence[int] | np.ndarray, tokens: int) -> np.ndarray:
    """At most `tokens` of the ids: all of a short document, else STRETCHES stretches spread evenly over it,
    the same every time.
    """
    if len(ids) <= tokens:
        return np.asarray(ids)
    size = tokens // STRETCHES
    starts = [(len(ids) - size) * index // (STRETCHES - 1) for index in range(STRETCHES)]
    return np.concatenate([np.asarray(ids[start : start + size]) for start in starts])


def _hash(keys_N: np.ndarray) -> np.ndarray:
    """uint64: the top bits choose the slot, eleven lower ones are kept in it."""
    hashed = keys_N * np.uint64(0x9E3779B97F4A7C15)
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xD6E8FEB86659FD93)
    return hashed


def _table(keys_N: np.ndarray, entries: int) -> np.ndarray:
    """uint16 (2 ** BITS,) of the most frequent keys; where two share a slot, the more frequent one stays."""
    keys, counts = np.unique(keys_N, return_counts=True)
    # In rising order, so that the last one written to a slot is the most frequent.
    most = np.argsort(counts, kind="stable")[-entries:]
    hashed = _hash(keys[most].astype(np.uint64))
    steps = np.clip(np.round(np.log2(counts[most]) * 2) + 1, 1, 31).astype(np.uint64)
    table_S = np.zeros(1 << BITS, np.uint16)
    table_S[hashed >> np.uint64(64 - BITS)] = ((hashed >> np.uint64(20)) & np.uint64(_CHECK)) << np.uint64(
        5
    ) | steps
    return table_S


def _look_up(table_S: np.ndarray, keys_N: np.ndarray) -> np.ndarray:
    """float32: the counts of the keys, 0 for those not in the table."""
    hashed_N = _hash(keys_N)
    slots_N = table_S.take((hashed_N >> np.uint64(64 - BITS)).view(np.int64))
    hashed_N >>= np.uint64(20)
    hashed_N &= np.uint64(_CHECK)
    hit_N = slots_N >> 5 == hashed_N.astype(np.uint16)
    slots_N &= 31
    slots_N *= hit_N
    return _COUNTS.take(slots_N)


def save(path: Path, fingerprint: str, models: dict[str, Trigrams], scores: dict[str, np.ndarray]) -> None:
    """Write models for the tokenizer of `fingerprint` and, by language, the scores of clean text at
    PERCENTILES, and the first percentile of shuffled text after them.
    """
    arrays: dict[str, Any] = {
        "fingerprint": np.array(fingerprint),
        "bytes": next(iter(models.values())).bytes_V.astype(np.uint16),
    }
    for language, model in models.items():
        steps = np.where(model.ones_V > 0, np.round(np.log2(np.maximum(model.ones_V, 1)) * 8) + 1, 0)
        arrays |= {
            f"{language}-ones": steps.astype(np.uint8),
            f"{language}-twos": model.twos_S,
            f"{language}-threes": model.threes_S,
            f"{language}-scores": scores[language].astype(np.float32),
        }
    raw = io.BytesIO()
    np.savez_compressed(raw, **arrays)
    write_atomically(path, raw.getvalue())


def load(path: Path) -> tuple[str, Callable[[str], Trigrams], dict[str, np.ndarray]]:
    """(fingerprint, a function from language to model, scores by language).

    Models are read from the file when first asked for.
    """
    what = "a perplexity model of scripts/train_perplexity.py"
    scores: dict[str, np.ndarray] = {}
    with reading(path, what), np.load(path, allow_pickle=False) as file:
        fingerprint = str(check("fingerprint", file["fingerprint"], (), "U"))
        bytes_V = check("bytes", file["bytes"], (None,), "u")
        for language in (key.removesuffix("-scores") for key in file.files if key.endswith("-scores")):
            name = f"{language}-scores"
            scores[language] = check(name, file[name], (len(PERCENTILES) + 1,), "f")
            if missing := {f"{language}-{part}" for part in ("ones", "twos", "threes")} - set(file.files):
                raise ValueError(f"'{min(missing)}' is missing")
        if others := {key.rpartition("-")[0] for key in file.files} - {"", *scores}:
            raise ValueError(f"'{min(others)}-scores' is missing")
    models: dict[str, Trigrams] = {}

    def model(language: str) -> Trigrams:
        if language not in models:
            with reading(path, what), np.load(path, allow_pickle=False) as file:
                steps = check(f"{language}-ones", file[f"{language}-ones"], (len(bytes_V),), "u")
                ones = np.where(steps > 0, 2 ** ((steps.astype(np.float32) - 1) / 8), 0).astype(np.float32)
                twos_S, threes_S = (
                    check(f"{language}-{part}", file[f"{language}-{part}"], (1 << BITS,), "u")
                    for part in ("twos", "threes")
                )
                models[language] = Trigrams(ones, twos_S, threes_S, bytes_V)
        return models[language]

    return fingerprint, model, scores
