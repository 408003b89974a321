"""The machinery shared by every language: stable chance, templates, and nouns that inflect inside a template.

A template is the sentence itself. `[a|b|c]` stands for one of the alternatives (it nests, and an alternative
may be empty), and `{hero:spec}` asks the word bound to `hero` for the form `spec`. A spec is spelled like the
form of an example word: `{hero:은}` becomes 은 or 는, `{ball:einen}` becomes einen, eine or ein. `a/b` or
`a/b/c` in a spec picks by gender: `{hero:content/contente}`.

The alternatives of one place are drawn without regard to those of another, unless marks tie them, so that an
answer goes with its question: `(name)` before an alternative leaves a mark, `(?name)` asks for one left
before, `(!name)` for its absence.
"""

import random
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeVar

T = TypeVar("T")
# One sentence of a story: its alternatives; a plain string is the only alternative.
Beat = str | tuple[str, ...]

# Stands for a sentence that depends on what the text said before.
LATER = "<later>"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SPACES = re.compile(r"\s*\n\s*|[ ]{2,}")
_MARK = re.compile(r"\(([?!]?)(\w+)\) *")


class Draw:
    """Chance that gives the same results on every platform and Python version.

    Built on `Random.random()` alone: the one method whose sequence Python promises to keep.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def several(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items, in random order."""
        remaining = list(items)
        return [remaining.pop(self.below(len(remaining))) for _ in range(count)]

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percent


class Noun:
    """A word with a gender ("m", "f", "n"). Languages subclass it and answer specs in `form`."""

    genders = "mf"

    def __init__(self, text: str, gender: str = "m") -> None:
        self.text, self.gender = text, gender

    def __format__(self, spec: str) -> str:
        if "/" in spec:
            return spec.split("/")[self.genders.index(self.gender)]
        return self.form(spec) if spec else self.text

    def form(self, spec: str) -> str:
        """The inflected form `spec` stands for. ValueError: no such form, the template is wrong."""
        raise ValueError(f"{type(self).__name__} has no form {spec!r}")


def fill(template: str, draw: Draw, words: Mapping[str, Any]) -> str:
    """One sentence: alternatives drawn, words set in."""
    while "[" in template:
        template = _CHOICE.sub(lambda found: draw.choice(found[1].split("|")), template)
    return template.format_map(words)


def marked(option: str) -> tuple[list[tuple[str, str]], str]:
    """An alternative's marks, each with its sign ("", "?" or "!"), and its text."""
    marks = []
    while mark := _MARK.match(option):
        marks.append((mark[1], mark[2]))
        option = option[mark.end() :]
    return marks, option


def fits(marks: Sequence[tuple[str, str]], left: Set[str]) -> bool:
    """Whether an alternative may follow those that left the marks `left`."""
    return all((name in left) == (sign == "?") for sign, name in marks if sign)


def choose(beat: Beat, draw: Draw, left: set[str]) -> str:
    """One alternative of those that fit what was said before; its own marks are added to `left`."""
    options = [marked(option) for option in ([beat] if isinstance(beat, str) else beat)]
    marks, text = draw.choice([(marks, text) for marks, text in options if fits(marks, left)])
    left.update(name for sign, name in marks if not sign)
    return text


def tell(beats: Sequence[Beat], draw: Draw, words: Mapping[str, Any]) -> str:
    """A text of beats in order, one alternative each.

    `"\\n"` starts a paragraph; an empty alternative leaves the beat out.
    """
    left: set[str] = set()
    chosen = [choose(beat, draw, left) for beat in beats]
    text = " ".join(part if part == "\n" else fill(part, draw, words) for part in chosen if part)
    return _SPACES.sub(lambda found: "\n" if "\n" in found[0] else " ", text).strip()


def capital(text: str) -> str:
    """The first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def turns(beats: Sequence[Beat], draw: Draw, words: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A dialogue from beats whose alternatives open with the speaker: [("A", "..."), ("B", "..."), ...]."""
    left: set[str] = set()
    lines = [fill(choose(beat, draw, left), draw, words).partition(": ") for beat in beats]
    return [(speaker, text) for speaker, _, text in lines]


def settle(text: str, weather: str, outcome: str, otherwise: str) -> str:
    """Put the sentence for `LATER` in: `outcome`, what became of the weather, where the text speaks of
    `weather`, else the neutral `otherwise`.
    """
    return text.replace(LATER, outcome if weather in text else otherwise)
