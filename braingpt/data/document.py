"""What every source yields and every later stage of the preparation takes: one piece of text and where it comes from."""

from typing import NamedTuple


class Document(NamedTuple):
    """A text, its language where the source says ("ko", "en", ...; None: to be detected), its source's name, and an id within it."""

    text: str
    language: str | None
    source: str
    id: str
