"""Lines that belong to a web page and not to its text: cookie notices, copyright lines, navigation (C4:
Raffel et al. 2020, section 2.2).

Short lines that hold one of the phrases are cut out. Searching the text for each phrase is fast (`in`
searches at more than 1 GB/s), and lines are examined only where a phrase was found.
"""

from functools import cache

from braingpt.data.quality import config as settings
from braingpt.data.quality.clean import clean
from braingpt.data.quality.config import bound_of
from braingpt.data.quality.text_stats import EXAMINED, TextStats


class Boilerplate:
    """Cuts boilerplate lines, with the phrases of the document's language and those for all."""

    def __init__(self, values: settings.Boilerplate) -> None:
        self._characters, self._share = values.characters, values.share

        @cache
        def phrases(language: str) -> list[str]:
            return [
                phrase.lower()
                for key in dict.fromkeys(("default", language))
                for phrase in values.phrases.get(key, [])
            ]

        self._phrases = phrases

    def allowed_share(self, language: str) -> float:
        """The greatest share of boilerplate that a document may have."""
        return bound_of(self._share, language)

    def cut(self, text: str, stats: TextStats, language: str) -> tuple[str, float]:
        """(the text without boilerplate lines, their share of the characters of all its lines).

        A text longer than EXAMINED is not cut.
        """
        lowered = stats.lowered
        present = [phrase for phrase in self._phrases(language) if phrase in lowered]
        if not present or len(text) > EXAMINED:
            return text, 0.0
        lines = text.split("\n")
        bad = [
            len(line) <= self._characters and any(phrase in line.lower() for phrase in present)
            for line in lines
        ]
        cut = sum(len(line.strip()) for line, one in zip(lines, bad, strict=True) if one)
        if not cut:
            return text, 0.0
        kept = "\n".join(line for line, one in zip(lines, bad, strict=True) if not one)
        return clean(kept), cut / sum(map(len, stats.lines))
