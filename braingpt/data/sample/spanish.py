"""Spanish: articles, contractions (al, del), agreement, and the conjunction e before the sound i.

A spec is the masculine form: `{gorro:el}` is el or la, `{hero:y}` is "y Ana" or "e Inés"; a `*` adds the
colour.
"""

import re

from braingpt.data.sample.european import Forms, Gendered, agree, write
from braingpt.data.sample.grammar import Draw, Noun, capital

# Feminine words that take el and un.
_STRESSED_A = ("águila", "agua", "hacha", "alma", "aula", "ala", "hada")
_ARTICLES = {
    "el": ("el", "la"),
    "un": ("un", "una"),
    "al": ("al", "a la"),
    "del": ("del", "de la"),
    "este": ("este", "esta"),
}
_SOUNDS_LIKE_I = re.compile(r"(i|hi(?!e|a))", re.IGNORECASE)


class Spanish(Gendered):
    """A Spanish noun or name."""

    def form(self, spec: str) -> str:
        wanted = spec.rstrip("*").lower()
        if wanted == "y":
            return f"{'e' if _SOUNDS_LIKE_I.match(self.text) else 'y'} {self.text}"
        color = f" {agree(self.color, self.gender)}" if spec.endswith("*") else ""
        # `*` alone gives the noun and its colour, as after mi and su.
        if not wanted:
            return self.text + color
        if wanted not in _ARTICLES:
            return super().form(spec)
        masculine = self.gender == "m" or (self.text in _STRESSED_A and wanted != "este")
        article = _ARTICLES[wanted][0 if masculine else 1]
        return f"{capital(article) if spec[0].isupper() else article} {self.text}{color}"


class Country(Noun):
    """`de`: de Francia, del Reino Unido, de la India; `Nom`: at the start of a sentence."""

    def form(self, spec: str) -> str:
        if spec == "de":
            return f"del {self.text[3:]}" if self.text.startswith("el ") else f"de {self.text}"
        return capital(self.text) if spec == "Nom" else super().form(spec)


def _said(draw: Draw, speaker: Noun, text: str, asked: bool) -> str:
    verb = "preguntó" if text[-1] == "?" else "respondió" if asked else "dijo"
    if draw.chance(40):
        return f"{speaker} {verb}: «{text.removesuffix('.')}»."
    return f"«{text.removesuffix('.')}», {verb} {speaker}."


FORMS = Forms(
    "es", Spanish, Country, _said, lambda speaker, text: f"{speaker}: «{text.removesuffix('.')}».", 9
)


def document(draw: Draw) -> str:
    """One Spanish document: story, dialogue or facts."""
    return write(FORMS, draw)
