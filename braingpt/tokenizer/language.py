"""Which of a set of languages a text is in (the six, unless others are named), and where code-switched text
changes language.

Script decides Korean: a text is Korean when at least 30 % of its letters are Hangul (measured: 99.9 % recall,
no false hit), because Korean writing is full of Latin names. An n-gram detector decides the rest. For longer
text it chooses among all its languages, so that Portuguese or Dutch are turned away. Below 40 characters it
chooses among ours alone, because the wide choice would cost more right answers than it prevents wrong ones.
eldc (C) is the detector; py3langid (pure Python) replaces it where eldc has no wheel. Both are loaded on
first use.

A language that was added to a tokenizer takes part by its code. One in another script than Latin or Hangul is
recognised by the detector over all its languages, and then code-switched text is cut where that script
begins, too.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from functools import cache

import numpy as np

from braingpt.tokenizer.cleaning import FILLERS

LANGUAGES = ("ko", "en", "de", "fr", "es", "it")
# Codes the detectors know whose script is neither Latin nor Hangul.
_OTHER = (
    "am ar as ba be bg bn dz el fa gu he hi hy ja ka kk km kn ky lo mk ml mn mr my ne or pa ps ru sa sd si "
    "sr ta te tg th ti ug uk ur yue zh"
)
OTHER_SCRIPTS = frozenset(_OTHER.split())
# Share of Hangul among the letters from which a text is Korean.
KOREAN_SHARE = 0.30
# Characters below which the detector chooses among our languages only.
SHORT_TEXT = 40
# Characters below which a piece between switches takes the language of the other Latin pieces, if they have
# one.
TINY_PIECE = 12
# Characters of a document that the detector reads; more do not change its answer.
DETECTED_CHARACTERS = 20_000
# Characters of a document that are counted at once.
BLOCK = 1 << 20
# So many Latin words in a Korean sentence are a name or a term, not a change of language.
INSERTED_WORDS = 2

# Without the fillers, which are letters to Unicode and nothing to the eye.
HANGUL_LETTERS = (
    "\u1100-\u115e\u1161-\u11ff\u3131-\u3163\u3165-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa1-\uffdc"
)
_LATIN_LETTERS = (
    "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"
)
_hangul = re.compile(f"[{HANGUL_LETTERS}]+")
_latin = re.compile(f"[{_LATIN_LETTERS}]+")
_letter = re.compile(rf"[^\W\d_{FILLERS}]+")
_two_scripts = re.compile(
    f"(?P<ko>[{HANGUL_LETTERS}][^{_LATIN_LETTERS}]*)|(?P<latin>[{_LATIN_LETTERS}][^{HANGUL_LETTERS}]*)"
)
_three_scripts = re.compile(
    rf"(?P<ko>[{HANGUL_LETTERS}][{HANGUL_LETTERS}{FILLERS}\W\d_]*)"
    rf"|(?P<latin>[{_LATIN_LETTERS}][{_LATIN_LETTERS}{FILLERS}\W\d_]*)"
    rf"|(?P<other>[^\W\d_{HANGUL_LETTERS}{_LATIN_LETTERS}{FILLERS}][^{HANGUL_LETTERS}{_LATIN_LETTERS}]*)"
)
_either = re.compile(f"[{HANGUL_LETTERS}{_LATIN_LETTERS}]")
# Bits of `_script_bits`.
_HANGUL, _LATIN, _BOTH, _LETTER = 1, 2, 3, 4
_sentence_end = re.compile(r"(?:[.!?…。](?=\s)|\n)\s*")


def detect(text: str, languages: Collection[str] = LANGUAGES) -> str | None:
    """The main language of a text.

    Args:
        text: Any text; its first 20,000 characters are read.
        languages: Codes to choose from.

    Returns:
        One of `languages`; None where the text is in another language or has no letters to decide by.
    """
    text = text[:DETECTED_CHARACTERS]
    letters, hangul, latin = (sum(map(len, script.findall(text))) for script in (_letter, _hangul, _latin))
    return detect_counted(text, letters, hangul, latin, languages)


def detect_counted(
    text: str, letters: int, hangul: int, latin: int, languages: Collection[str] = LANGUAGES
) -> str | None:
    """`detect` for a caller who has counted the letters: all, those of Hangul, those of the Latin script."""
    if hangul and hangul >= KOREAN_SHARE * letters:
        return "ko" if "ko" in languages else None
    text = text[:DETECTED_CHARACTERS]
    if latin and latin >= 0.5 * (letters - hangul):
        return _detect_latin(_hangul.sub(" ", text) if hangul else text, languages)
    if letters and not OTHER_SCRIPTS.isdisjoint(languages):
        code = _wide_detector()(text)
        return code if code in languages and code in OTHER_SCRIPTS else None
    return None


def split(text: str, languages: Collection[str] = LANGUAGES) -> list[tuple[str | None, str]]:
    """Cut code-switched text where it changes script.

    Digits, punctuation and spaces stay with the piece before them. In a sentence that is Korean (by the 30 %
    rule) one or two words in another script stay Korean: they are a name or a term.

    Args:
        text: Any text.
        languages: Codes to choose from.

    Returns:
        (language, piece) pairs, language None where it is none of `languages`; joined, the pieces are
        `text`.
    """
    cuts = _cuts(text, languages)
    if not cuts:
        return [(None, text)] if text else []
    starts = [0, *(start for _, start in cuts[1:]), len(text)]
    pieces = [(script, text[starts[i] : starts[i + 1]]) for i, (script, _) in enumerate(cuts)]
    latin = cache(lambda: detect(" ".join(piece for script, piece in pieces if script == "latin"), languages))

    def language(script: str, piece: str) -> str | None:
        if script == "ko" and "ko" in languages:
            return "ko"
        return (latin() if script == "latin" and len(piece) < TINY_PIECE else None) or detect(
            piece, languages
        )

    return [(language(script, piece), piece) for script, piece in pieces]


def detectable(code: str) -> bool:
    """Whether `detect` can ever answer `code`."""
    try:
        import eldc
    except ImportError:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return code in LanguageIdentifier.from_model_file(MODEL_FILE).labels
    return code in eldc.LANGUAGES


def _cuts(text: str, languages: Collection[str]) -> list[tuple[str, int]]:
    """("ko", "latin" or "other", where it begins) wherever the script changes."""
    cuts: list[tuple[str, int]] = []
    stretches = _of_two if OTHER_SCRIPTS.isdisjoint(languages) else _of_three
    for script, start in stretches(text, *_sentences(text)):
        if not cuts or cuts[-1][0] != script:
            cuts.append((script, start))
    return cuts


def _sentences(text: str) -> tuple[list[int], list[int]]:
    """Where the sentences begin and where they end."""
    ends = [match.end() for match in _sentence_end.finditer(text)]
    if text and (not ends or ends[-1] < len(text)):
        ends.append(len(text))
    return [0, *ends][: len(ends)], ends


def _of_two(text: str, starts: list[int], ends: list[int]) -> Iterator[tuple[str, int]]:
    """("ko" or "latin", where it begins) for each stretch of Hangul or Latin script, where it may differ from
    the one before.

    Letters of other scripts stay with the stretch before them. The letters of many sentences are counted at
    once, of BLOCK characters, since counting takes some bytes for each; few sentences are then looked at.
    """
    first = 0
    while first < len(starts):
        last = max(first + 1, bisect_right(ends, starts[first] + BLOCK))
        scripts_S, korean_S = _scripts_of_sentences(
            text[starts[first] : ends[last - 1]], np.array(starts[first:last]) - starts[first]
        )
        known = np.flatnonzero(scripts_S)
        before_K = np.concatenate([[0], scripts_S[known[:-1]]])
        for number in known[(scripts_S[known] != before_K) | (scripts_S[known] == _BOTH)].tolist():
            start, end = starts[first + number], ends[first + number]
            if scripts_S[number] != _BOTH:
                letter = _either.search(text, start, end)
                if letter:
                    yield "ko" if scripts_S[number] == _HANGUL else "latin", letter.start()
                continue
            for match in _two_scripts.finditer(text, start, end):
                script = match.lastgroup or ""
                inserted = (
                    script == "latin" and korean_S[number] and _words(match.group(), _latin) <= INSERTED_WORDS
                )
                yield ("ko" if inserted else script), match.start()
        first = last


def _scripts_of_sentences(text: str, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each sentence the scripts that are in it, as bits, and whether it is Korean by its share of Hangul.

    A Korean one with so few stretches of Latin letters that all are inserted counts as of Hangul alone.
    """
    bits_N = _script_bits().take(
        np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), mode="clip"
    )
    scripts_S = np.bitwise_or.reduceat(bits_N, starts) & _BOTH
    syllables_S, letters_S = (
        np.add.reduceat(bits_N & bit, starts, dtype=np.uint32) // bit for bit in (_HANGUL, _LETTER)
    )
    korean_S = syllables_S >= KOREAN_SHARE * letters_S
    bits_N &= _LATIN
    # Only the first letter of each Latin stretch keeps its bit; no sentence begins within a stretch.
    bits_N[1:] &= ~bits_N[:-1]
    few_S = np.add.reduceat(bits_N, starts, dtype=np.uint32) <= _LATIN * INSERTED_WORDS
    scripts_S[(scripts_S == _BOTH) & korean_S & few_S] = _HANGUL
    return scripts_S, korean_S


def _of_three(text: str, starts: list[int], ends: list[int]) -> Iterator[tuple[str, int]]:
    """As `_of_two`, where a third script counts: ("ko", "latin" or "other", where it begins)."""
    for start, end in zip(starts, ends, strict=True):
        sentence = text[start:end]
        letters, syllables = (sum(map(len, script.findall(sentence))) for script in (_letter, _hangul))
        korean = syllables > 0 and syllables >= KOREAN_SHARE * letters
        for match in _three_scripts.finditer(sentence):
            script = match.lastgroup or ""
            if (
                script != "ko"
                and korean
                and _words(match.group(), _latin if script == "latin" else _letter) <= INSERTED_WORDS
            ):
                script = "ko"
            yield script, start + match.start()


@cache
def _script_bits() -> np.ndarray:
    """uint8 (0x30000,): of each character whether it is a letter, one of Hangul, one of the Latin script."""
    every = "".join(map(chr, range(0x30000)))
    table_C = np.zeros(len(every), np.uint8)
    for bit, script in ((_LETTER, _letter), (_HANGUL, _hangul), (_LATIN, _latin)):
        for match in script.finditer(every):
            table_C[match.start() : match.end()] |= bit
    return table_C


def _words(piece: str, letters: re.Pattern[str]) -> int:
    """Words, by white space, that hold one of `letters`: `don't`, `will.i.am` and `static_cast(x)` are one
    each.
    """
    return sum(bool(letters.search(word)) for word in piece.split())


def _detect_latin(text: str, languages: Collection[str]) -> str | None:
    detector = _narrow_detector(tuple(languages)) if len(text) < SHORT_TEXT else _wide_detector()
    code = detector(text)
    return code if code in languages else None


@cache
def _wide_detector() -> Callable[[str], str]:
    """The detector over all its languages; the first time costs 20 ms with eldc, 200 ms with py3langid."""
    return _detector(None)


@cache
def _narrow_detector(languages: tuple[str, ...]) -> Callable[[str], str]:
    """The detector over those of `languages` that are written in Latin script."""
    return _detector(
        [code for code in languages if code != "ko" and code not in OTHER_SCRIPTS and detectable(code)]
    )


def _only_best(ranked: list[tuple[str, float]]) -> str:
    """The first language of a ranking; none where the next is as likely, as py3langid finds for "OK"."""
    return ranked[0][0] if len(ranked) < 2 or ranked[0][1] > ranked[1][1] else ""


def _detector(codes: list[str] | None) -> Callable[[str], str]:
    """A detector over `codes`, over everything it knows for None; an empty list never finds anything."""
    if codes == []:
        return lambda text: ""
    try:
        import eldc
    except ImportError:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        if codes:
            identifier.set_languages(codes)
        return lambda text: _only_best(identifier.rank(text))
    eldc.init()
    instance = eldc.instance()
    instance.set_languages(codes or [])
    return instance.detect
