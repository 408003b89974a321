"""Italian: articles (il, lo, l', la, i, gli, le), prepositions joined to them (del, dello, nell', sulla),
agreement.

A spec is the form before a plain masculine noun: `{zaino:il}` is lo zaino, `{isola:nel}` is nell'isola; a `*`
adds the colour.
"""

import re

from braingpt.data.sample.european import Forms, Gendered, agree, write
from braingpt.data.sample.grammar import Draw, Noun, capital

_VOWEL = re.compile(r"h?[aeiouàèéìòù]", re.IGNORECASE)
# impure s and its company
_LO = re.compile(r"(s[^aeiouàèéìòù]|z|gn|ps|pn|x|y|i[aeou])", re.IGNORECASE)
# preposition or article -> its forms as (il, lo, la, l')
_JOINED = {
    "il": ("il ", "lo ", "la ", "l'"),
    "del": ("del ", "dello ", "della ", "dell'"),
    "al": ("al ", "allo ", "alla ", "all'"),
    "dal": ("dal ", "dallo ", "dalla ", "dall'"),
    "nel": ("nel ", "nello ", "nella ", "nell'"),
    "sul": ("sul ", "sullo ", "sulla ", "sull'"),
    "quel": ("quel ", "quello ", "quella ", "quell'"),
}
_MANY = {"i": ("i ", "gli ", "le "), "dei": ("dei ", "degli ", "delle "), "ai": ("ai ", "agli ", "alle ")}
_OWNED = {
    "il suo": ("il suo ", "la sua "),
    "suo": ("suo ", "sua "),
    "il mio": ("il mio ", "la mia "),
    "mio": ("mio ", "mia "),
}
_OWNED |= {
    "il tuo": ("il tuo ", "la tua "),
    "del suo": ("del suo ", "della sua "),
    "nuovo": ("nuovo ", "nuova "),
}


def article(spec: str, word: str, gender: str) -> str:
    """What stands before `word` for `spec`, with the space after it where there is one."""
    vowel, impure = bool(_VOWEL.match(word)) and not re.match(r"i[aeou]", word), bool(_LO.match(word))
    if spec == "un":
        return ("un'" if vowel else "una ") if gender == "f" else "uno " if impure else "un "
    if spec in _MANY:
        return _MANY[spec][2 if gender == "f" else 1 if vowel or impure else 0]
    if spec in _OWNED:
        return _OWNED[spec][1 if gender == "f" else 0]
    return _JOINED[spec][3 if vowel else 2 if gender == "f" else 1 if impure else 0]


class Italian(Gendered):
    """An Italian noun or name; `other` is its plural."""

    def form(self, spec: str) -> str:
        wanted = spec.rstrip("*").lower()
        # ed Elena, ad Anna: before the same vowel
        if wanted in ("e", "a"):
            joined = spec + "d" if self.text[0].lower() == wanted else spec
            return f"{joined} {self.text}"
        if wanted != "un" and wanted not in _JOINED | _MANY | _OWNED:
            return super().form(spec)
        word = self.other if wanted in _MANY else self.text
        before = article(wanted, word, self.gender)
        color = f" {agree(self.color, self.gender)}" if spec.endswith("*") else ""
        return f"{capital(before) if spec[0].isupper() else before}{word}{color}"


class Country(Noun):
    """`di`: della Francia, del Belgio, dell'Italia, di Cuba; `Nom`: at the start of a sentence."""

    def form(self, spec: str) -> str:
        if spec == "di":
            first, _, name = self.text.partition(" ")
            if self.text.startswith("l'"):
                return "dell'" + self.text[2:]
            return (
                f"{ {'il': 'del', 'la': 'della'}[first] } {name}"
                if first in ("il", "la")
                else f"di {self.text}"
            )
        return capital(self.text) if spec == "Nom" else super().form(spec)


def _said(draw: Draw, speaker: Noun, text: str, asked: bool) -> str:
    verb = "chiede" if text[-1] == "?" else "risponde" if asked else "dice"
    if draw.chance(40):
        return f"{speaker} {verb}: «{text}»"
    return f"«{text.removesuffix('.')}» {verb} {speaker}."


FORMS = Forms("it", Italian, Country, _said, lambda speaker, text: f"{speaker}: «{text}»", 11)


def document(draw: Draw) -> str:
    """One Italian document: story, dialogue or facts."""
    return write(FORMS, draw)
