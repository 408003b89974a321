"""English words in their forms: a or an, plurals, pronouns, the past and the -ing form of verbs."""

import re

from braingpt.data.sample.grammar import Noun, capital

_SPELLED_VOWEL_SAID_CONSONANT = re.compile(r"(uni(?![nm])|use|u[tk]|eu|one\b|once\b)", re.IGNORECASE)
_SILENT_H = re.compile(r"(hour|honest|honou?r|heir)", re.IGNORECASE)
_PLURALS = {
    "mouse": "mice",
    "wolf": "wolves",
    "leaf": "leaves",
    "knife": "knives",
    "child": "children",
    "goose": "geese",
    "foot": "feet",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "man": "men",
    "woman": "women",
    "potato": "potatoes",
    "tomato": "tomatoes",
}
_PAST = dict(
    pair.split("=")
    for pair in [
        "be=was",
        "build=built",
        "catch=caught",
        "dig=dug",
        "do=did",
        "draw=drew",
        "drink=drank",
        "eat=ate",
        "feed=fed",
        "find=found",
        "fly=flew",
        "go=went",
        "have=had",
        "hide=hid",
        "make=made",
        "put=put",
        "read=read",
        "ride=rode",
        "row=rowed",
        "run=ran",
        "sew=sewed",
        "sing=sang",
        "sleep=slept",
        "swim=swam",
        "take=took",
        "teach=taught",
        "tell=told",
        "throw=threw",
        "win=won",
        "write=wrote",
    ]
)
_PRONOUNS = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
# The last letter doubles before an ending: stop, stopped; skip, skipping.
_DOUBLED = re.compile(r"[^aeiou][aeiou][bdgmnpt]$")


def article(word: str) -> str:
    """ "a" or "an" by the first sound: an apple, a university, an hour."""
    vowel = word[0].lower() in "aeiou" and not _SPELLED_VOWEL_SAID_CONSONANT.match(word)
    return "an" if vowel or _SILENT_H.match(word) else "a"


def plural(noun: str) -> str:
    """The plural of the last word: box, boxes; baby, babies; mouse, mice."""
    *before, last = noun.split(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*before, last])


def verb(phrase: str, form: str) -> str:
    """`phrase` with its first word in the past ("ed") or as a participle ("ing")."""
    first, *rest = phrase.split(" ")
    if form == "ed" and first in _PAST:
        first = _PAST[first]
    elif form == "ed" and first.endswith("e"):
        first += "d"
    elif form == "ed" and re.search(r"[^aeiou]y$", first):
        first = first[:-1] + "ied"
    else:
        if _DOUBLED.search(first) and len(re.findall("[aeiou]", first)) == 1:
            first += first[-1]
        elif form == "ing" and re.search(r"[^eo]e$", first):
            first = first[:-1]
        first += form
    return " ".join([first, *rest])


class English(Noun):
    """A word or phrase. Specs: `a`, `A` (with the article), `s` (plural), `ed`, `ing` (verbs), `Cap`, and
    he/him/his for persons.
    """

    def form(self, spec: str) -> str:
        if spec in ("a", "A"):
            return f"{article(self.text) if spec == 'a' else capital(article(self.text))} {self.text}"
        if spec == "s":
            return plural(self.text)
        if spec == "Cap":
            return capital(self.text)
        if spec in ("ed", "ing"):
            return verb(self.text, spec)
        if spec.lower() in _PRONOUNS:
            word = spec.lower() if self.gender == "m" else _PRONOUNS[spec.lower()]
            return capital(word) if spec[0].isupper() else word
        return super().form(spec)
