"""The built-in sample corpus: short stories, dialogues and facts in six languages, written by the grammars of
this package.

It needs no download and carries no licence but the project's own, so tests, the quickstart and a first
training run start from it. The same seed gives the same bytes on every platform and Python version. What it
gives up: its world is small and its sentences are simple.
"""

import hashlib
from collections.abc import Generator, Iterator
from importlib import import_module

from braingpt.data.document import Document
from braingpt.data.sample.grammar import Draw

DEFAULT_BYTES = 4_000_000

# Language, module, function, share of the bytes in percent; the second Korean stream is code-switched with
# English.
_STREAMS = (
    ("ko", "korean", "document", 37.5),
    ("ko", "korean", "mixed_document", 2.5),
    ("en", "english", "document", 30.0),
    ("de", "german", "document", 7.5),
    ("fr", "french", "document", 7.5),
    ("es", "spanish", "document", 7.5),
    ("it", "italian", "document", 7.5),
)


def documents(seed: int = 0, size_bytes: int = DEFAULT_BYTES) -> Iterator[Document]:
    """The corpus with the languages interleaved in their shares, no text twice.

    Args:
        seed: Decides the texts.
        size_bytes: UTF-8 bytes of all texts together, which the last document exceeds by less than its own
            length. A smaller corpus is the beginning of a larger one with the same seed.

    Returns:
        An iterator over the documents.
    """
    write = [getattr(import_module(f"{__name__}.{module}"), function) for _, module, function, _ in _STREAMS]
    draws = [Draw(seed * len(_STREAMS) + i) for i in range(len(_STREAMS))]
    spent = [0] * len(_STREAMS)
    numbers = {stream[0]: 0 for stream in _STREAMS}
    seen: set[bytes] = set()
    while sum(spent) < size_bytes:
        behind = min(range(len(_STREAMS)), key=lambda i: spent[i] / _STREAMS[i][3])
        text = write[behind](draws[behind])
        encoded = text.encode()
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        if digest in seen:
            continue
        seen.add(digest)
        spent[behind] += len(encoded)
        language = _STREAMS[behind][0]
        yield Document(text, language, "sample", f"sample-{language}-{numbers[language]}")
        numbers[language] += 1


class SampleStream:
    """The corpus as the pipeline reads it (`data/sources/document_stream.py`): resumed by making it again up
    to the position.
    """

    source, language, label = "sample", None, "sample"
    available, absent_reason = True, ""

    def __init__(self, languages: list[str]) -> None:
        self._languages, self._next, self._bytes = languages, 0, 0

    def position(self) -> dict[str, int]:
        """The place behind the last document."""
        return {"next": self._next}

    def resume(self, position: dict[str, int]) -> None:
        """Begin at a position."""
        self._next = position["next"]

    def fraction_read(self) -> float:
        """Share made so far, 0 to 1."""
        return min(1.0, self._bytes / DEFAULT_BYTES)

    def __iter__(self) -> Generator[Document, None, None]:
        """Documents of the languages wanted, from the position on."""
        for number, document in enumerate(documents()):
            self._bytes += len(document.text.encode())
            if number >= self._next and document.language in self._languages:
                self._next = number + 1
                yield document
