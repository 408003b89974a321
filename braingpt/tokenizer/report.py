"""What a text costs in tokens, and how its tokens look: for one vocabulary, beside those of GPT-2, GPT-4 and
GPT-4o.

The more text a token holds, the cheaper the text. Between languages compare characters per token (a Hangul
syllable has three bytes), between vocabularies of one language characters or bytes. The other vocabularies
are used where their rank files are in tiktoken's cache; nothing is downloaded.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braingpt.tokenizer.encoding import Tokenizer
from braingpt.tokenizer.language import detect
from braingpt.tokenizer.named import NAMED, is_cached, open_tokenizer

# Characters of a row that are counted: the figures of a longer text are the same, and the slowest encoding
# reads 3 MB/s.
FIRST_CHARACTERS = 2_000_000
# A Korean word by white space is an eojeol.
_word = re.compile(r"\S+")
_syllable = re.compile("[가-힣]")


@dataclass
class Cost:
    """What one encoding makes of a row's texts: how often it used each token, and the seconds that encoding
    took on one thread.
    """

    tokenizer: Tokenizer
    used_V: np.ndarray
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return int(self.used_V.sum())

    def add(self, text: str) -> None:
        """Encode and count one text."""
        began = time.perf_counter()
        ids = self.tokenizer.encode(text)
        self.seconds += time.perf_counter() - began
        np.add.at(self.used_V, ids, 1)

    def broken_and_whole(self) -> tuple[int, int]:
        """(tokens that are not complete characters, Hangul syllables inside one token). Several tokens spell
        each other syllable.
        """
        broken = whole = 0
        for token in np.flatnonzero(self.used_V):
            entry, count = self.tokenizer.token(int(token)), int(self.used_V[token])
            whole += count * len(_syllable.findall(entry.decode("utf-8", "ignore")))
            try:
                entry.decode("utf-8")
            except UnicodeDecodeError:
                broken += count
        return broken, whole


@dataclass
class ReportRow:
    """Counts over the texts of one name in one language; None: a language without a marker."""

    name: str
    language: str | None
    texts: int = 0
    characters: int = 0
    bytes: int = 0
    # Runs of anything but white space.
    words: int = 0
    # Hangul syllables.
    syllables: int = 0
    # Tokenizer's name -> what it makes of the texts.
    costs: dict[str, Cost] = field(default_factory=dict)

    def figures(self, encoding: str) -> dict[str, float | int | None]:
        """The report's figures for one encoding; None where there is nothing to divide by.

        `whole_syllables`: share of the Hangul syllables that lie in one token. `byte_fallback`: share of the
            tokens that are not complete characters. `mb_per_second`: of UTF-8, on one thread.
        """
        cost = self.costs[encoding]
        broken, whole = cost.broken_and_whole()
        return {
            "tokens": cost.tokens,
            "characters_per_token": self.characters / cost.tokens,
            "bytes_per_token": self.bytes / cost.tokens,
            "tokens_per_word": cost.tokens / self.words if self.words else None,
            "whole_syllables": whole / self.syllables if self.syllables else None,
            "byte_fallback": broken / cost.tokens,
            "mb_per_second": self.bytes / 1e6 / cost.seconds if cost.seconds else None,
        }


def measure(
    documents: Iterable[tuple[str, str]], tokenizer: Tokenizer, name: str = "braingpt"
) -> tuple[list[ReportRow], list[str]]:
    """What documents cost in tokens, by their name and detected language.

    Args:
        documents: (name, text) pairs, read once.
        tokenizer: The tokenizer to measure.
        name: What `tokenizer` is called in the rows.

    Returns:
        The rows, of whose texts the first two million characters count, and the names of the encodings whose
        rank files are not in tiktoken's cache.
    """
    others = {other: open_tokenizer(other) for other in NAMED if other != name and is_cached(other)}
    encodings = {name: tokenizer, **others}
    rows: dict[tuple[str, str | None], ReportRow] = {}
    for path, text in documents:
        key = path, detect(text, tokenizer.marked)
        if key not in rows:
            rows[key] = ReportRow(
                *key,
                costs={
                    encoding: Cost(other, np.zeros(other.vocab_size, dtype=np.int64))
                    for encoding, other in encodings.items()
                },
            )
        row = rows[key]
        if not text or row.characters >= FIRST_CHARACTERS:
            continue
        row.texts += 1
        row.characters += len(text)
        row.bytes += len(text.encode())
        row.words += len(_word.findall(text))
        row.syllables += len(_syllable.findall(text))
        for cost in row.costs.values():
            cost.add(text)
    return [row for row in rows.values() if row.texts], [other for other in NAMED if other not in encodings]


def hangul_alone(tokenizer: Tokenizer) -> dict[str, float]:
    """Share of Hangul syllables that are one token when they stand alone: of all 11,172, and of the 2,350
    that KS X 1001 counts as common.
    """
    every = [chr(code) for code in range(0xAC00, 0xD7A4)]
    common = [syllable for syllable in every if _in_ksx1001(syllable)]
    single = {syllable for syllable in every if len(tokenizer.encode(syllable)) == 1}
    return {
        "all": len(single) / len(every),
        "common": sum(syllable in single for syllable in common) / len(common),
    }


def as_json(rows: list[ReportRow], absent: list[str]) -> dict[str, Any]:
    """The report as plain values: the counts, and the figures for each encoding."""
    counts = ("name", "language", "texts", "characters", "bytes", "words", "syllables")
    return {
        "rows": [
            {key: getattr(row, key) for key in counts}
            | {"encodings": {encoding: _rounded(row.figures(encoding)) for encoding in row.costs}}
            for row in rows
        ],
        "hangul_alone": {name: _rounded(hangul_alone(cost.tokenizer)) for name, cost in rows[0].costs.items()}
        if rows
        else {},
        "absent": absent,
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


def _in_ksx1001(syllable: str) -> bool:
    try:
        return len(syllable.encode("euc_kr")) == 2
    except UnicodeEncodeError:
        return False
