"""The rules on a document's text: each takes its `TextStats` and the bounds of one language and says whether
the document breaks it.

Sources: word length, symbols, bullets, ellipses, stop words and repetition from Gopher (Rae et al. 2021,
appendix A); placeholders and boilerplate lines from C4 (Raffel et al. 2020, section 2.2); short and
unfinished lines from FineWeb (Penedo et al. 2024, section 3.6). Script, jamo and Korean endings are ours. All
bounds come from the settings; a text too short for a rule to mean anything passes it.
"""

import re
from collections.abc import Callable
from operator import methodcaller

import numpy as np

from braingpt.data.quality import config as settings
from braingpt.data.quality.clean import MOJIBAKE
from braingpt.data.quality.config import QualityConfig, bound_of
from braingpt.data.quality.text_stats import DIGIT, HANGUL, JAMO, LATIN, SYMBOL, TextStats

# True where the document breaks the rule.
Rule = Callable[[TextStats], bool]

_BULLETS = ("•", "●", "○", "■", "▪", "►", "▶", "‣", "◦", "- ", "* ", "·", "※", "ㆍ")
# A heading has a space after the sign.
_HASHTAG = re.compile(r"#\w")
_P = np.uint64(0x9E3779B97F4A7C15)
_ELLIPSES = ("...", "…", "[...]", "(...)")
_ENDS = tuple(".!?…。\"'”’»)]:;")


def rules_of(config: QualityConfig, language: str) -> list[tuple[str, Rule]]:
    """The rules that are on, in the order of the settings, with the bounds of one language: (name, rule)."""
    rules = []
    for key, make in _RULES.items():
        values = getattr(config, key)
        if values is not None:
            rule = _stop_words(values, language, config) if key == "stop_words" else make(values, language)
            if rule is not None:
                rules.append((key.replace("_", " "), rule))
    return rules


def _short(values: settings.Short, language: str) -> Rule:
    least = bound_of(values.characters, language)
    return lambda stats: stats.visible < least


def _few_letters(values: settings.MinimumShare, language: str) -> Rule:
    least = bound_of(values.share, language)
    return lambda stats: stats.letters < least * stats.visible


def _other_script(values: settings.MinimumShare, language: str) -> Rule:
    least, kind = bound_of(values.share, language), HANGUL if language == "ko" else LATIN
    return lambda stats: (
        stats.counts[kind] + (stats.counts[JAMO] if kind == HANGUL else 0) < least * stats.letters
    )


def _damage(values: settings.MaximumShare, language: str) -> Rule:
    most = bound_of(values.share, language)

    def rule(stats: TextStats) -> bool:
        damaged = stats.text.count("\ufffd")
        if _may_be_mojibake(stats.codes_N):
            damaged += 2 * len(MOJIBAKE.findall(stats.text))
        return damaged > most * stats.visible

    return rule


def _may_be_mojibake(codes_N: np.ndarray) -> bool:
    """Whether a letter that MOJIBAKE begins with comes before anything but ASCII and letters of Latin-1,
    which is rarely true of text without mojibake.
    """
    after_M = codes_N[1:][codes_N[:-1] - np.uint32(0xC2) <= 0xF4 - 0xC2]
    return bool(((after_M >= 0x80) & (after_M - np.uint32(0xC0) > 0xFF - 0xC0)).any())


def _word_length(values: settings.WordLength, language: str) -> Rule:
    least, most, words = (
        bound_of(values.least, language),
        bound_of(values.most, language),
        bound_of(values.words, language),
    )

    def rule(stats: TextStats) -> bool:
        count = len(stats.words)
        return count >= words and not least * count <= stats.visible <= most * count

    return rule


def _lone_jamo(values: settings.MaximumShare, language: str) -> Rule:
    most = bound_of(values.share, language)
    return lambda stats: stats.counts[JAMO] > most * stats.visible


def _symbols(values: settings.Symbols, language: str) -> Rule:
    share, per_word = bound_of(values.share, language), bound_of(values.per_word, language)

    def rule(stats: TextStats) -> bool:
        if stats.counts[SYMBOL] > share * stats.visible:
            return True
        marks = len(_HASHTAG.findall(stats.text)) + stats.text.count("...") + stats.text.count("…")
        return marks > per_word * max(len(stats.words), 12)

    return rule


def _repeated_letters(values: settings.MaximumShare, language: str) -> Rule:
    most = bound_of(values.share, language)

    def rule(stats: TextStats) -> bool:
        same_N = stats.codes_N[1:] == stats.codes_N[:-1]
        third_N = same_N[1:] & same_N[:-1]
        # One 하하하 in a short line is not too much.
        allowed = max(2, most * stats.visible)
        if np.count_nonzero(third_N) <= allowed:
            return False
        kinds = stats.kinds_N[:-2][third_N]
        # Digits as in 1999 and 1,000 do not count.
        return int(((kinds >= LATIN) & (kinds < DIGIT) & (kinds != JAMO)).sum()) > allowed

    return rule


def _stop_words(values: settings.StopWords, language: str, config: QualityConfig) -> Rule | None:
    if language not in config.stop_word_lists:
        return None
    share, words = bound_of(values.share, language), bound_of(values.words, language)
    known = frozenset(config.stop_word_lists[language].split())

    def rule(stats: TextStats) -> bool:
        if len(stats.words) < words:
            return False
        return sum(map(known.__contains__, stats.words)) < share * len(stats.words)

    return rule


def _endings(values: settings.Endings, language: str) -> Rule | None:
    if language != "ko":
        return None
    share, stretches = bound_of(values.share, language), bound_of(values.stretches, language)
    table_C = np.zeros(0x10000, bool)
    table_C[[ord(syllable) for syllable in values.syllables]] = True

    def rule(stats: TextStats) -> bool:
        last_E = stats.final_syllables()
        return len(last_E) >= stretches and np.count_nonzero(table_C[last_E]) < share * len(last_E)

    return rule


def _of_lines(values: settings.Lines, language: str, bad: Callable[[str], bool]) -> Rule:
    share, lines = bound_of(values.share, language), bound_of(values.lines, language)
    return lambda stats: len(stats.lines) >= lines and sum(map(bad, stats.lines)) > share * len(stats.lines)


def _bullets(values: settings.Lines, language: str) -> Rule:
    return _of_lines(values, language, methodcaller("startswith", _BULLETS))


def _ellipses(values: settings.Lines, language: str) -> Rule:
    return _of_lines(values, language, methodcaller("endswith", _ELLIPSES))


def _short_lines(values: settings.ShortLines, language: str) -> Rule:
    characters = bound_of(values.characters, language)
    return _of_lines(values, language, lambda line: len(line) < characters)


def _unfinished_lines(values: settings.Lines, language: str) -> Rule:
    return _of_lines(values, language, lambda line: not line.endswith(_ENDS))


def _repeated_lines(values: settings.MaximumShare, language: str) -> Rule:
    most = bound_of(values.share, language)
    return lambda stats: _repeats(stats.lines, most)


def _repeated_paragraphs(values: settings.MaximumShare, language: str) -> Rule:
    most = bound_of(values.share, language)
    return lambda stats: "\n\n" in stats.text and _repeats(stats.text.split("\n\n"), most)


def _repeats(parts: list[str], most: float) -> bool:
    """Whether more than this share of the characters are in parts that occurred before.

    Parts of a few characters do not count.
    """
    parts = [part for part in parts if len(part) >= 8]
    once = set(parts)
    if len(once) == len(parts):
        return False
    total = sum(map(len, parts))
    return total - sum(map(len, once)) > most * total


def _top_ngram(values: settings.TopNgram, language: str) -> Rule:
    share, words = bound_of(values.share, language), bound_of(values.words, language)

    def rule(stats: TextStats) -> bool:
        if len(stats.words) < words:
            return False
        pairs = _ngrams(stats.word_hashes_W, 2)
        pairs.sort()
        # Occurrences of one pair that are still allowed.
        most = int(share * len(stats.words) / 2)
        # Sorted, one pair too many is a run of most + 1 equal ones.
        return bool((pairs[most:] == pairs[: len(pairs) - most]).any())

    return rule


def _repeated_ngrams(values: settings.Ngrams, language: str) -> Rule:
    five, ten, words = (
        bound_of(values.five, language),
        bound_of(values.ten, language),
        bound_of(values.words, language),
    )

    def rule(stats: TextStats) -> bool:
        if len(stats.words) < words:
            return False
        least = min(five, ten)
        repeated = _repeated_share(stats.word_hashes_W, 5, least)
        # A word in a repeated run of ten is in a repeated run of five, so the tens are rarely looked at.
        return repeated > five or (repeated > ten and _repeated_share(stats.word_hashes_W, 10, ten) > ten)

    return rule


def _ngrams(hashes_W: np.ndarray, n: int) -> np.ndarray:
    """uint64 (words - n + 1,): hashes of the runs of `n` words."""
    keys_G = hashes_W[: len(hashes_W) - n + 1].copy()
    for offset in range(1, n):
        keys_G *= _P
        keys_G += hashes_W[offset : offset + len(keys_G)]
    return keys_G


def _repeated_share(hashes_W: np.ndarray, n: int, least: float) -> float:
    """The share of the words that belong to a run of `n` words which occurred before; each counted once.

    0 where it cannot reach `least`.
    """
    keys_G = _ngrams(hashes_W, n)
    sorted_G = np.sort(keys_G)
    if n * np.count_nonzero(sorted_G[1:] == sorted_G[:-1]) <= least * len(hashes_W):
        return 0.0
    order_G = np.argsort(keys_G, kind="stable")
    # The order is stable, so these are all occurrences but the first.
    again_G = order_G[1:][sorted_G[1:] == sorted_G[:-1]]
    starts_W = np.zeros(len(hashes_W), bool)
    starts_W[again_G] = True
    covered_W = np.zeros(len(hashes_W), bool)
    for offset in range(n):
        covered_W[offset:] |= starts_W[: len(starts_W) - offset]
    return float(np.count_nonzero(covered_W)) / len(hashes_W)


def _placeholder(values: settings.Placeholder, language: str) -> Rule:
    phrases = [phrase.lower() for phrase in values.phrases]
    return lambda stats: any(phrase in stats.lowered for phrase in phrases)


_RULES: dict[str, Callable[..., Rule | None]] = {
    "short": _short,
    "few_letters": _few_letters,
    "other_script": _other_script,
    "damage": _damage,
    "word_length": _word_length,
    "lone_jamo": _lone_jamo,
    "symbols": _symbols,
    "repeated_letters": _repeated_letters,
    "stop_words": _stop_words,
    "endings": _endings,
    "bullets": _bullets,
    "ellipses": _ellipses,
    "short_lines": _short_lines,
    "unfinished_lines": _unfinished_lines,
    "repeated_lines": _repeated_lines,
    "repeated_paragraphs": _repeated_paragraphs,
    "top_ngram": _top_ngram,
    "repeated_ngrams": _repeated_ngrams,
    "placeholder": _placeholder,
}
