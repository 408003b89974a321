"""What every source yields and every later stage of the preparation takes: one piece of text and where it
comes from.
"""

from typing import NamedTuple


class Document(NamedTuple):
    """A text, its language where the source says ("ko", "en", ...; None: to be detected), its source's name,
    and an id within it.

    `scores`: numbers the source gives with the text, by their name there (FineWeb-Edu's `int_score`,
        RedPajama's quality signals).
    """

    text: str
    language: str | None
    source: str
    id: str
    scores: dict[str, float] | None = None
