"""Streams of documents, cut into chunks for the workers: chunk after chunk of one stream, then of the next.

A chunk carries what the main process needs beside its outcome: the rows from which no document could be made,
and the position after its last document, where reading continues after an interruption.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from braingpt.data.document import Document
from braingpt.data.sample import SampleStream
from braingpt.data.sources.document_stream import DocumentStream, StreamEvents
from braingpt.data.sources.open_streams import StreamRequest, open_streams

# Characters of a chunk, give or take a document.
CHUNK_CHARACTERS = 500_000
# Documents of a chunk at most, however short they are.
CHUNK_DOCUMENTS = 5_000


class BrokenRow(NamedTuple):
    """A row from which no document can be made, the rule that counts it, and how it looks."""

    source: str
    rule: str
    sample: str


class Chunk(NamedTuple):
    """Documents of one stream that follow each other.

    Attributes:
        stream: Number of the stream.
        documents: The documents.
        broken: Broken rows among them.
        after: The stream's position after the last of them.
        fraction_read: Share of the stream read by then, 0 to 1; None where unknown.
    """

    stream: int
    documents: list[Document]
    broken: list[BrokenRow]
    after: dict[str, Any]
    fraction_read: float | None


class ChunkReader:
    """Reads the streams of a request, a chunk at a time.

    Attributes:
        streams: The streams in their order; `resume` them before reading begins.
    """

    def __init__(
        self,
        request: StreamRequest,
        note: Callable[[str], None],
        is_full: Callable[[DocumentStream | SampleStream], bool],
    ) -> None:
        """A reader of the streams of a request.

        Args:
            request: What to read.
            note: Called with a line for the user.
            is_full: Whether no further document of a stream is wanted; the rest of the stream is then
                skipped.
        """
        self._is_full = is_full
        # Broken rows read since the last chunk.
        self._broken: list[BrokenRow] = []
        events = StreamEvents(note, lambda *row: self._broken.append(BrokenRow(*row)))
        self.streams = open_streams(request, events)

    def chunks(self, first_stream: int) -> Iterator[Chunk]:
        """Read the chunks of all streams.

        Args:
            first_stream: Number of the stream to begin with.
        """
        for number in range(first_stream, len(self.streams)):
            if not self._is_full(self.streams[number]):
                yield from self._chunks_of_stream(number)

    def _chunks_of_stream(self, number: int) -> Iterator[Chunk]:
        stream = self.streams[number]
        documents: list[Document] = []
        size = 0
        try:
            with closing(iter(stream)) as reading:
                for document in reading:
                    documents.append(document)
                    size += len(document.text)
                    if size >= CHUNK_CHARACTERS or len(documents) >= CHUNK_DOCUMENTS:
                        if self._is_full(stream):
                            break
                        yield self._chunk(number, documents)
                        documents, size = [], 0
        except Exception:
            # What was read before is not lost.
            yield self._chunk(number, documents)
            raise
        yield self._chunk(number, documents)

    def _chunk(self, number: int, documents: list[Document]) -> Chunk:
        broken, self._broken = self._broken, []
        stream = self.streams[number]
        return Chunk(number, documents, broken, stream.position(), stream.fraction_read())
