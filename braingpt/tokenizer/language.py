"""Which of the six languages a text is in, and where code-switched text changes language.

Script decides Korean: a text is Korean when at least 30 % of its letters are Hangul (measured: 99.9 % recall, no false hit), since Korean
writing is full of Latin names. The rest is for an n-gram detector: over all its languages for longer text, so that Portuguese or Dutch are
turned away, and over ours alone below 40 characters, where the wide choice costs more right answers than it saves wrong ones. eldc (C) is
the detector; py3langid (pure Python) stands in where eldc has no wheel. Both are loaded on first use.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache

LANGUAGES = ("ko", "en", "de", "fr", "es", "it")
KOREAN_SHARE = 0.30  # of the letters
SHORT = 40  # characters: below this the detector chooses among our languages only
TINY = 12  # characters: below this a piece between switches takes the language of the other Latin pieces, if they have one
ENOUGH = 20_000  # characters of a document that the detector reads; its answer no longer changes
INSERTED_WORDS = 2  # so many Latin words in a Korean sentence are a name or a term, not a change of language

_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa1-\uffdc"
_LATIN = "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"
_hangul = re.compile(f"[{_HANGUL}]+")
_latin = re.compile(f"[{_LATIN}]+")
_letter = re.compile(r"[^\W\d_]+")
_script = re.compile(f"(?P<ko>[{_HANGUL}][^{_LATIN}]*)|(?P<latin>[{_LATIN}][^{_HANGUL}]*)")
_sentence_end = re.compile(r"(?:[.!?…。](?=\s)|\n)\s*")


def detect(text: str) -> str | None:
    """The language of `text` as a whole: one of LANGUAGES, or None when it is another language or holds no letters to tell by."""
    text = text[:ENOUGH]
    letters, hangul, latin = (sum(map(len, script.findall(text))) for script in (_letter, _hangul, _latin))
    return decide(text, letters, hangul, latin)


def decide(text: str, letters: int, hangul: int, latin: int) -> str | None:
    """As `detect`, for a caller who has counted the letters already: all, those of Hangul and those of the Latin script."""
    if hangul and hangul >= KOREAN_SHARE * letters:
        return "ko"
    if not latin or latin < 0.5 * (letters - hangul):
        return None
    text = text[:ENOUGH]
    return _detect_latin(_hangul.sub(" ", text) if hangul else text)


def split(text: str) -> list[tuple[str | None, str]]:
    """Cut code-switched text where it changes between Hangul and Latin; the pieces, joined, are `text` exactly.

    Returns (language, piece) pairs, language None where it is none of ours. Digits, punctuation and spaces stay with the piece before
    them. In a sentence that is Korean (by the 30 % rule) one or two Latin words stay Korean: they are a name or a term.
    """
    cuts: list[tuple[str, int]] = []  # (script, where it begins)
    start = 0
    for end in [*(match.end() for match in _sentence_end.finditer(text)), len(text)]:
        for script, where in _scripts(text[start:end], start):
            if not cuts or cuts[-1][0] != script:
                cuts.append((script, where))
        start = end
    if not cuts:
        return [(None, text)] if text else []
    starts = [0, *(start for _, start in cuts[1:]), len(text)]
    pieces = [(script, text[starts[i] : starts[i + 1]]) for i, (script, _) in enumerate(cuts)]
    latin = cache(lambda: detect(" ".join(piece for script, piece in pieces if script == "latin")))
    return [("ko" if script == "ko" else (latin() if len(piece) < TINY else None) or detect(piece), piece) for script, piece in pieces]


def _scripts(sentence: str, offset: int) -> Iterator[tuple[str, int]]:
    """("ko" or "latin", where it begins in the text) for each stretch of one sentence; nothing for one without such letters."""
    hangul, latin = _hangul.search(sentence), _latin.search(sentence)
    if not hangul or not latin:  # most sentences: nothing to count
        if hangul or latin:
            yield ("ko", offset + hangul.start()) if hangul else ("latin", offset + latin.start())
        return
    letters, syllables = (sum(map(len, script.findall(sentence))) for script in (_letter, _hangul))
    korean = syllables >= KOREAN_SHARE * letters
    if korean and len(_latin.findall(sentence)) <= INSERTED_WORDS:
        yield "ko", offset + min(hangul.start(), latin.start())
        return
    for match in _script.finditer(sentence):
        script = match.lastgroup or ""
        if script == "latin" and korean and _words(match.group()) <= INSERTED_WORDS:
            script = "ko"
        yield script, offset + match.start()


def _words(piece: str) -> int:
    """Words, by white space, that hold a Latin letter: `don't`, `will.i.am` and `static_cast(x)` are one each."""
    return sum(bool(_latin.search(word)) for word in piece.split())


def _detect_latin(text: str) -> str | None:
    wide, narrow = _detectors()
    found = (narrow if len(text) < SHORT else wide)(text)
    return found if found in LANGUAGES else None


@cache
def _detectors() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """(over all languages, over the five of ours in Latin script); the first time costs 20 ms with eldc, 200 ms with py3langid."""
    ours = [code for code in LANGUAGES if code != "ko"]
    try:
        import eldc
    except ImportError:
        return _langid_detectors(ours)
    eldc.init()
    wide, narrow = eldc.instance(), eldc.instance()
    wide.set_languages([])
    narrow.set_languages(ours)
    return wide.detect, narrow.detect


def _langid_detectors(ours: list[str]) -> tuple[Callable[[str], str], Callable[[str], str]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    wide, narrow = (LanguageIdentifier.from_model_file(MODEL_FILE) for _ in range(2))
    narrow.set_languages(ours)
    return (lambda text: wide.classify(text)[0]), (lambda text: narrow.classify(text)[0])
