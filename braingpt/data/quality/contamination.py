"""Decontamination: documents that hold a stretch of an evaluation set are dropped.

GPT-3 (Brown et al. 2020, appendix C) compares runs of 13 words. Korean words change their particles and their
spacing from copy to copy, so stretches of characters are compared, of letters and digits only and
without case: 20 characters of Korean, 40 of other text, about 8 words of English
(docs/results/quality-filters.md has the measurements). Hashes of all stretches of a set are held as one
sorted array, eight bytes a character; a document's are computed for all positions at once from prefix sums of
a polynomial hash.
"""

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from braingpt.data.quality import config as settings
from braingpt.data.quality.arrays import check, reading
from braingpt.data.quality.clean import clean
from braingpt.data.quality.text_stats import DIGIT, EXAMINED, HANGUL, LATIN, TextStats
from braingpt.errors import UserError
from braingpt.utils.atomic_write import write_atomically

# An odd number: powers of it never vanish modulo 2 ** 64.
_P = np.uint64(0x9E3779B97F4A7C15)
_FILTER_BITS = 24
# Share of Hangul from which a text's stretches have the Korean length.
KOREAN_SHARE = 0.3


class Contamination:
    """The rule on text shared with evaluation sets. UserError for a set that cannot be read or is empty."""

    def __init__(self, values: settings.Contamination) -> None:
        if not values.files:
            raise UserError(
                "quality setting contamination.files names no evaluation sets; "
                "list them, or set contamination: false"
            )
        self._lengths = _lengths(values)
        grams = [
            _read_list(Path(file), self._lengths)
            if file.endswith(".npy")
            else _grams_of_texts(texts_of(Path(file)), self._lengths)
            for file in values.files
        ]
        for file, by_length in zip(values.files, grams, strict=True):
            # A filter that cannot find anything would make every corpus look clean.
            if not any(map(len, by_length.values())):
                raise UserError(
                    f"the evaluation set {file} holds no text of {self._lengths[0]} letters and digits "
                    "or more"
                )
        self._grams = {
            length: np.unique(np.concatenate([one[length] for one in grams])) for length in self._lengths
        }
        self._filters = {length: _prefix_filter(found) for length, found in self._grams.items()}

    def drops(self, stats: TextStats) -> bool:
        """Whether the document shares a stretch with an evaluation set."""
        letters_N = _letters(stats)
        for length, grams in self._grams.items():
            if not len(grams):
                continue
            hashes = _hashes(letters_N, length)
            maybe = hashes[self._filters[length][hashes >> np.uint64(64 - _FILTER_BITS)]]
            nearest = grams[np.minimum(np.searchsorted(grams, maybe), len(grams) - 1)]
            if (nearest == maybe).any():
                return True
        return False


def prepare_list(
    files: Iterable[Path], out: Path, values: settings.Contamination | None = None
) -> dict[int, int]:
    """Write the hashes of the files' texts to `out` (.npy), so that a large set is read once; returns their
    number by length.
    """
    lengths = _lengths(values or settings.Contamination())
    by_file = [_grams_of_texts(texts_of(file), lengths) for file in files]
    grams = {length: np.unique(np.concatenate([one[length] for one in by_file])) for length in lengths}
    rows = [np.stack([np.full(len(one), length, np.uint64), one], axis=1) for length, one in grams.items()]
    raw = io.BytesIO()
    np.save(raw, np.concatenate(rows))
    write_atomically(out, raw.getvalue())
    return {length: len(one) for length, one in grams.items()}


def texts_of(path: Path) -> Iterator[str]:
    """The texts of an evaluation set: every line of txt, every string of jsonl and parquet.

    UserError when it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    yield from _strings(row)
            return
        as_json = path.name.removesuffix(".gz").endswith((".jsonl", ".json"))
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if as_json and line.strip():
                    yield from _strings(json.loads(line))
                elif not as_json:
                    yield line
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the evaluation set {path}: {' '.join(str(error).split())}") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _lengths(values: settings.Contamination) -> list[int]:
    return sorted(set(values.characters.values()))


def _grams_of_texts(texts: Iterable[str], lengths: list[int]) -> dict[int, np.ndarray]:
    """Hashes of all stretches of the texts, by length.

    The shortest length serves Korean text, the longest the rest.
    """
    grams: dict[int, list[np.ndarray]] = {length: [np.empty(0, np.uint64)] for length in lengths}
    for text in texts:
        stats = TextStats(clean(text))
        korean = stats.counts[HANGUL] >= KOREAN_SHARE * max(1, stats.letters)
        length = lengths[0] if korean else lengths[-1]
        grams[length].append(_hashes(_letters(stats), length))
    return {length: np.unique(np.concatenate(hashes)) for length, hashes in grams.items()}


def _read_list(path: Path, lengths: list[int]) -> dict[int, np.ndarray]:
    with reading(path, "a list of evaluation sets that `prepare_list` wrote"):
        table = check("table", np.load(path, allow_pickle=False), (None, 2), "u")
    other = sorted(set(np.unique(table[:, 0]).tolist()) - set(lengths))
    if other:
        raise UserError(f"{path} was prepared for stretches of other lengths; prepare the list again")
    return {length: table[table[:, 0] == length, 1] for length in lengths}


def _letters(stats: TextStats) -> np.ndarray:
    """uint32: the letters and digits of a text, in lower case where one letter stays one letter."""
    lowered = stats.lowered
    # A letter may become two, such as İ; then the text stays as it is.
    if len(lowered) != len(stats.text):
        lowered = stats.text
    codes_N = np.frombuffer(lowered.encode("utf-32-le"), np.uint32)
    return codes_N[(stats.kinds_N >= LATIN) & (stats.kinds_N <= DIGIT)]


def _hashes(codes_N: np.ndarray, length: int) -> np.ndarray:
    """uint64: the hash of the stretch at every position.

    Of the characters c[0], ..., c[n-1] it is the sum of c[i] P^(n-i), then mixed.
    """
    count = len(codes_N) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    powers, inverse = _powers()
    sums = np.concatenate(
        [
            np.zeros(1, np.uint64),
            np.cumsum((codes_N.astype(np.uint64) + np.uint64(1)) * inverse[: len(codes_N)]),
        ]
    )
    # A difference holds the sum of c[j] P^-(j+1) for j in i .. i+n-1; times P^(i+n), the exponents count from
    # the stretch's own end.
    hashed = (sums[length:] - sums[:-length]) * powers[length - 1 :][:count]
    hashed ^= hashed >> np.uint64(31)
    return hashed * np.uint64(0xD6E8FEB86659FD93)


@cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """P^1, P^2, ... and P^-1, P^-2, ... modulo 2 ** 64, for the longest text looked at."""
    return np.cumprod(np.full(EXAMINED, _P)), np.cumprod(
        np.full(EXAMINED, np.uint64(pow(int(_P), -1, 1 << 64)))
    )


def _prefix_filter(grams: np.ndarray) -> np.ndarray:
    """bool (2 ** _FILTER_BITS,): whether any hash begins so; most positions of a clean document end here."""
    bits = np.zeros(1 << _FILTER_BITS, bool)
    bits[grams >> np.uint64(64 - _FILTER_BITS)] = True
    return bits
