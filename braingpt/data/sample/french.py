"""French: articles with elision and contraction, possessives, and agreement.

A spec is the masculine form: `{ballon:le}` is le, la or l', `{lieu:du}` is du, de la or de l', `{hero:de}` is
de or d'; a `*` adds the colour.
"""

from braingpt.data.sample.european import Forms, Gendered, agree, write
from braingpt.data.sample.grammar import Draw, Noun, capital

_ASPIRATED = (
    "hibou",
    "hérisson",
    "hamster",
    "hache",
    "haricot",
    "héron",
    "Hongrie",
    "harpe",
    "hublot",
    "handball",
    "Hugo",
)
# Spec -> (masculine, feminine, before a vowel).
_ARTICLES = {
    "le": ("le ", "la ", "l'"),
    "un": ("un ", "une ", ""),
    "du": ("du ", "de la ", "de l'"),
    "au": ("au ", "à la ", "à l'"),
    "ce": ("ce ", "cette ", ""),
    "mon": ("mon ", "ma ", ""),
    "ton": ("ton ", "ta ", ""),
    "son": ("son ", "sa ", ""),
    "de": ("de ", "de ", "d'"),
    "que": ("que ", "que ", "qu'"),
}


def elides(word: str) -> bool:
    """Whether le, de and que lose their vowel before `word`: a vowel or a mute h."""
    return word[0].lower() in "aàâeéèêëiîïoôuûœ" or (word[0].lower() == "h" and word not in _ASPIRATED)


class French(Gendered):
    """A French noun or name."""

    def form(self, spec: str) -> str:
        wanted = spec.rstrip("*").lower()
        if wanted not in _ARTICLES:
            return super().form(spec)
        masculine, feminine, elided = _ARTICLES[wanted]
        article = feminine if self.gender == "f" else masculine
        if elides(self.text):
            if elided:
                article = elided
            elif wanted in ("mon", "ton", "son"):
                article = masculine
            elif wanted == "ce" and self.gender == "m":
                article = "cet "
        color = f" {agree(self.color, self.gender)}" if spec.endswith("*") else ""
        return f"{capital(article) if spec[0].isupper() else article}{self.text}{color}"


class Country(Noun):
    """`de`: de la France, du Japon, de l'Italie, de Cuba; `Nom`: at the start of a sentence."""

    def form(self, spec: str) -> str:
        if spec == "de":
            return f"du {self.text[3:]}" if self.text.startswith("le ") else f"de {self.text}"
        return capital(self.text) if spec == "Nom" else super().form(spec)


def _said(draw: Draw, speaker: Noun, text: str, asked: bool) -> str:
    verb = "demande" if text[-1] == "?" else "répond" if asked else "dit"
    if draw.chance(40):
        return f"{speaker} {verb} : « {text} »"
    if text[-1] in "?!":
        return f"« {text} » {verb} {speaker}."
    return f"« {text.removesuffix('.')} », {verb} {speaker}."


FORMS = Forms("fr", French, Country, _said, lambda speaker, text: f"{speaker} : « {text} »", 7)


def document(draw: Draw) -> str:
    """One French document: story, dialogue or facts."""
    return write(FORMS, draw)
