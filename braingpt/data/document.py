"""A document, which every source yields and every later stage of the preparation takes."""

from typing import NamedTuple


class Document(NamedTuple):
    """A text and where it comes from.

    Attributes:
        text: The text.
        language: Its language as the source names it, such as "ko"; None: to be detected.
        source: Name of the source.
        id: Id within the source.
        scores: Numbers that the source gives with the text, by their name there (FineWeb-Edu's `int_score`,
            RedPajama's quality signals).
    """

    text: str
    language: str | None
    source: str
    id: str
    scores: dict[str, float] | None = None
