"""Where a document really changes language: the pieces of `tokenizer.language.split`, without those that are
only names, terms and code.

Korean manuals are full of Latin identifiers, and a detector calls them French or Italian at random. So a
Latin piece is a switch of language only when it reads like a sentence: a few words, and among them enough of
the detected language's most frequent words. A Hangul piece is a switch from three words on. Everything else
stays with the text before it. For most documents a cheap check shows that there is no switch, and `split` is
not called.
"""

import re
from collections.abc import Iterator

import numpy as np

from braingpt.data.quality.text_stats import HANGUL, JAMO, LATIN, TextStats
from braingpt.tokenizer.language import INSERTED_WORDS, LANGUAGES, split

# A Latin piece of fewer words is an insertion.
MIN_WORDS = 4
# Share of stop words among the words of a switch, at least.
STOP_WORD_SHARE = 0.15
_latin = re.compile("[A-Za-z\u00aa-\u02af\u1e00-\u1eff]")
_hangul_word = re.compile("[\uac00-\ud7a3]+")


class Segmenter:
    """Cuts code-switched documents."""

    def __init__(self, lists: dict[str, str], marked: tuple[str, ...] = LANGUAGES) -> None:
        """`lists`: stop words by language; in a language without a list, any piece of some words counts.

        `marked`: the languages to choose from.
        """
        self._marked = marked
        self._stop = {language: frozenset(words.split()) for language, words in lists.items()}
        self._any_stop = frozenset().union(*self._stop.values())

    def cut(self, text: str, stats: TextStats, language: str) -> list[tuple[str | None, str]]:
        """(language, piece) in order; joined, the pieces are `text`. `language`: that of the document."""
        if not self._may_switch(text, stats, language):
            return [(language, text)]
        segments: list[tuple[str | None, str]] = []
        for code, piece in split(text, self._marked):
            if code != language and not self._is_switch(code, piece):
                code = segments[-1][0] if segments else language
            if segments and segments[-1][0] == code:
                segments[-1] = (code, segments[-1][1] + piece)
            else:
                segments.append((code, piece))
        return segments

    def _may_switch(self, text: str, stats: TextStats, language: str) -> bool:
        hangul, latin = stats.counts[HANGUL] + stats.counts[JAMO], stats.counts[LATIN]
        if len(text) > len(stats.text):
            return True
        if not hangul or not latin:
            return False
        if language != "ko":
            return hangul > INSERTED_WORDS
        if not self._stop:
            return True
        return not self._any_stop.isdisjoint(stats.words) and any(
            map(self._may_be_sentence, _latin_stretches(stats))
        )

    def _may_be_sentence(self, stretch: str) -> bool:
        """Whether a piece that `_is_switch` would take can lie in this stretch without Hangul: so many words,
        and a stop word among them.
        """
        words = stretch.lower().split()
        return len(words) >= MIN_WORDS and not self._any_stop.isdisjoint(words)

    def _is_switch(self, code: str | None, piece: str) -> bool:
        if code is None:
            return False
        if code == "ko":
            return len(_hangul_word.findall(piece)) > INSERTED_WORDS
        words = piece.lower().split()
        stop = self._stop.get(code)
        return len(words) >= MIN_WORDS and (
            stop is None or sum(map(stop.__contains__, words)) >= STOP_WORD_SHARE * len(words)
        )


def _latin_stretches(stats: TextStats) -> Iterator[str]:
    """The stretches without Hangul of a text that has some, where they may hold a few words: each from its
    first Latin letter on.
    """
    of_hangul = np.flatnonzero((stats.kinds_N == HANGUL) | (stats.kinds_N == JAMO))
    befores = np.concatenate([[-1], of_hangul])
    gaps = np.diff(befores, append=len(stats.text))
    for number in np.flatnonzero(gaps >= 2 * MIN_WORDS).tolist():
        start = int(befores[number]) + 1
        latin = _latin.search(stats.text, start, start + int(gaps[number]) - 1)
        if latin:
            yield stats.text[latin.start() : start + int(gaps[number]) - 1]
