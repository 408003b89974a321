"""Cleaning and quality rules: what a document must look like to be trained on, language by language.

`clean` makes text canonical (NFC, no control characters, no stray whitespace); `verdict` names the first rule a document breaks, or None.
The rules are cheap shape heuristics in the spirit of Gopher (Rae et al. 2021, appendix A), with bounds of their own per language: Gopher's
English bounds drop nearly all Korean, whose whitespace words (eojeol) average 3.4 characters. `Filters` applies both and counts every drop
by rule, with a few short samples, so that what was thrown away can be read in the manifest.
"""

import re
import unicodedata
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from braingpt.data.document import Document

SAMPLES = 3  # dropped documents shown per rule
SAMPLE_LENGTH = 80  # characters of each

# Control and format characters without a glyph, byte-order marks and lone surrogates. Joiners stay: emoji and Indic scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_TRAILING = re.compile(r"[ \t\u00a0]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")
_LONE_JAMO = re.compile("[ㄱ-ㅣ]")
_RUN = re.compile(r"([^\W\d_])\1{19,}")  # one letter twenty times or more
_RUN_SHARE = 0.02  # of what is not whitespace: a long page may hold one 하하하하


class Bounds(NamedTuple):
    """What a document of one language must keep to."""

    characters: int  # at least
    letters: float  # least share of letters in what is not whitespace
    word: tuple[float, float]  # mean length of whitespace words, characters; asked of texts of a dozen words and more
    repeated_lines: float  # greatest share of characters in lines that occurred before
    jamo: float  # greatest share of lone jamo (ㅋㅋ, ㅠㅠ) in what is not whitespace


_LATIN = Bounds(characters=20, letters=0.55, word=(2.5, 12.0), repeated_lines=0.3, jamo=1.0)
BOUNDS = {
    "ko": Bounds(characters=10, letters=0.55, word=(1.8, 8.0), repeated_lines=0.3, jamo=0.1),
    "de": _LATIN._replace(word=(3.0, 14.0)),
}


def clean(text: str) -> str:
    """`text` in NFC, without control characters, spaces at line ends, or runs of empty lines; every line end is `\\n`."""
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _EMPTY_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()


def verdict(text: str, language: str) -> str | None:
    """The first quality rule that cleaned `text` breaks, or None when it is good."""
    bounds = BOUNDS.get(language, _LATIN)
    if len(text) < bounds.characters:
        return "too short"
    words = text.split()
    visible = sum(map(len, words))
    if sum(map(str.isalpha, text)) < bounds.letters * visible:
        return "few letters"
    if len(words) >= 12 and not bounds.word[0] <= visible / len(words) <= bounds.word[1]:
        return "word length"
    if bounds.jamo < 1 and len(_LONE_JAMO.findall(text)) > bounds.jamo * visible:
        return "lone jamo"
    if _repeated_lines(text) > bounds.repeated_lines or sum(len(run[0]) for run in _RUN.finditer(text)) > _RUN_SHARE * visible:
        return "repetition"
    return None


def _repeated_lines(text: str) -> float:
    """Share of the characters that stand in lines which occurred before in the same text. Lines of a few characters do not count."""
    seen: set[str] = set()
    total = repeated = 0
    for line in text.split("\n"):
        line = line.strip()
        if len(line) < 8:
            continue
        total += len(line)
        if line in seen:
            repeated += len(line)
        seen.add(line)
    return repeated / total if total else 0.0


class Dropped(NamedTuple):
    """Documents dropped by one rule, and the beginnings of the first few."""

    documents: int
    samples: list[str]


class Filters:
    """Cleans documents, finds their language, applies the rules, and keeps count.

    `languages`: the ones wanted. `detect`: text -> language or None, asked only where the source does not say.
    """

    def __init__(self, languages: Collection[str], detect: Callable[[str], str | None]) -> None:
        self.languages = frozenset(languages)
        self.detect = detect
        self.read = 0
        self.kept = 0
        self._dropped: dict[str, Dropped] = {}

    def apply(self, document: Document) -> Document | None:
        """The document cleaned and with its language, or None when a rule drops it."""
        self.read += 1
        text = clean(document.text)
        if not text:
            return self.drop("empty", text)
        language = document.language or self.detect(text)
        if language not in self.languages:
            return self.drop("language", f"[{language or 'unknown'}] {text[:SAMPLE_LENGTH]}")
        rule = verdict(text, language)
        if rule:
            return self.drop(rule, text)
        self.kept += 1
        return document._replace(text=text, language=language)

    def broken(self, rule: str, sample: str) -> None:
        """Count something a reader could not make a document of: a row that is not JSON, bytes that are not UTF-8."""
        self.read += 1
        self.drop(rule, sample)

    def duplicate(self, document: Document) -> None:
        """Count a document that passed `apply` and then turned out to be there already."""
        self.kept -= 1
        self.drop("duplicate", document.text)

    def drop(self, rule: str, sample: str) -> None:
        """Count one drop by `rule`."""
        before = self._dropped.get(rule, Dropped(0, []))
        if len(before.samples) < SAMPLES:
            line = " ".join(sample[: 4 * SAMPLE_LENGTH].split())[:SAMPLE_LENGTH]
            before.samples.append(line.encode("utf-8", "replace").decode("utf-8"))
        self._dropped[rule] = before._replace(documents=before.documents + 1)

    def report(self) -> dict[str, Any]:
        """Counts as plain data: `read`, `kept`, and `dropped` by rule, the most frequent first."""
        rules = sorted(self._dropped.items(), key=lambda item: -item[1].documents)
        return {"read": self.read, "kept": self.kept, "dropped": {rule: dropped._asdict() for rule, dropped in rules}}
