"""German: articles, possessives and adjectives by case and gender.

A spec is the masculine form: `{ball:den}` is den, die or das in the accusative, `{ball:einem*}` is einem
roten Ball with the ball's colour.
"""

from braingpt.data.sample.european import Forms, Gendered, write
from braingpt.data.sample.grammar import Draw, Noun, capital

# Masculine form -> (case, kind, masculine, feminine, neuter); the kind decides the adjective: w(eak) after
# der, m(ixed) after ein and sein.
_DETERMINERS = {
    "der": ("nom", "w", "der", "die", "das"),
    "den": ("acc", "w", "den", "die", "das"),
    "dem": ("dat", "w", "dem", "der", "dem"),
    "ein": ("nom", "m", "ein", "eine", "ein"),
    "einen": ("acc", "m", "einen", "eine", "ein"),
    "einem": ("dat", "m", "einem", "einer", "einem"),
    "kein": ("nom", "m", "kein", "keine", "kein"),
    "keinen": ("acc", "m", "keinen", "keine", "kein"),
    "mein": ("nom", "m", "mein", "meine", "mein"),
    "meinen": ("acc", "m", "meinen", "meine", "mein"),
    "meinem": ("dat", "m", "meinem", "meiner", "meinem"),
    "dein": ("nom", "m", "dein", "deine", "dein"),
    "deinen": ("acc", "m", "deinen", "deine", "dein"),
    "sein": ("nom", "m", "sein", "seine", "sein"),
    "seinen": ("acc", "m", "seinen", "seine", "sein"),
    "seinem": ("dat", "m", "seinem", "seiner", "seinem"),
}
_ENDINGS = {
    "w": {"nom": ("e", "e", "e"), "acc": ("en", "e", "e"), "dat": ("en", "en", "en")},
    "m": {"nom": ("er", "e", "es"), "acc": ("en", "e", "es"), "dat": ("en", "en", "en")},
}


class German(Gendered):
    """A German noun; `other` is its form outside the nominative (der Bär, den Bären)."""

    genders = "mfn"

    def form(self, spec: str) -> str:
        wanted = spec.rstrip("*").lower()
        if wanted not in _DETERMINERS:
            return super().form(spec)
        case, kind, *forms = _DETERMINERS[wanted]
        gender = self.genders.index(self.gender)
        determiner = forms[gender]
        if wanted.startswith("sein") and self.owner == "f":
            determiner = "ihr" + determiner[4:]
        noun = self.text if case == "nom" else self.other
        adjective = f"{self.color}{_ENDINGS[kind][case][gender]} " if spec.endswith("*") else ""
        return f"{capital(determiner) if spec[0].isupper() else determiner} {adjective}{noun}"


class Country(Noun):
    """`von`: von Frankreich, der Schweiz; `Nom`: the name with its article at the start of a sentence."""

    def form(self, spec: str) -> str:
        if spec == "von":
            return "der " + self.text[4:] if self.text.startswith("die ") else f"von {self.text}"
        return capital(self.text) if spec == "Nom" else super().form(spec)


def _said(draw: Draw, speaker: Noun, text: str, asked: bool) -> str:
    verb = "fragte" if text[-1] == "?" else "antwortete" if asked else "sagte"
    if draw.chance(40):
        return f"{speaker} {verb}: „{text}“"
    return f"„{text.removesuffix('.')}“, {verb} {speaker}."


FORMS = Forms("de", German, Country, _said, lambda speaker, text: f"{speaker}: „{text}“", 5, "mfn")


def document(draw: Draw) -> str:
    """One German document: story, dialogue or facts."""
    return write(FORMS, draw)
