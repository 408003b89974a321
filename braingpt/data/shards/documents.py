"""Documents read back from a prepared folder: where they begin and end (at the end-of-text token), a few
drawn at random, all of them counted.

Token files are memory-mapped. Drawing reads only around the documents drawn, whatever the size of the folder;
counting reads every token once, in blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from braingpt.data.shards.manifest import (
    NAME,
    SPLITS,
    Manifest,
    TokenStream,
    check_ids,
    check_sizes,
    prepare_command,
    read_manifest,
)
from braingpt.errors import UserError, did_you_mean
from braingpt.tokenizer import Tokenizer

# Tokens read at once.
BLOCK = 1 << 20
# Draws for each document wanted, before documents are taken in their order.
ATTEMPTS = 30
# Bins of the histogram of lengths between a length and its double, and in all.
PER_OCTAVE = 4
LENGTH_BINS = 40 * PER_OCTAVE


class StoredDocument(NamedTuple):
    """One document of a prepared folder.

    Attributes:
        split: "train" or "validation".
        language: Language of its stream.
        source: Source of its stream.
        file: Path of its file within the folder.
        start: Index of its first token in the file.
        ids: Its token ids, int64, marker and end of text included.
        whole: Whether it ends with an end of text; a cut for validation may leave one that does not.
    """

    split: str
    language: str
    source: str
    file: str
    start: int
    ids: np.ndarray
    whole: bool


@dataclass
class StreamStatistics:
    """Counts over all tokens of one stream.

    Attributes:
        stream: The stream.
        documents: Documents that end in it.
        tokens: Tokens, markers and ends of text included.
        characters: Characters of its text.
        bytes: UTF-8 bytes of its text.
        broken: Tokens that are not complete characters.
        shortest: Tokens of the shortest document, marker and end of text included.
        longest: Tokens of the longest document.
        lengths: Documents by length, int64 (LENGTH_BINS,), see `bin_of`.
    """

    stream: TokenStream
    documents: int = 0
    tokens: int = 0
    characters: int = 0
    bytes: int = 0
    broken: int = 0
    shortest: int = 0
    longest: int = 0
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(LENGTH_BINS, dtype=np.int64))

    def count_lengths(self, length_N: np.ndarray) -> None:
        """Count documents of these lengths."""
        if not len(length_N):
            return
        self.shortest = min(self.shortest or int(length_N[0]), int(length_N.min()))
        self.longest = max(self.longest, int(length_N.max()))
        self.documents += len(length_N)
        self.lengths += np.bincount(bin_of(length_N), minlength=len(self.lengths))


def bin_of(length_N: np.ndarray) -> np.ndarray:
    """The bin of each length from 1 on: bin b holds lengths from 2^(b / PER_OCTAVE) up to the next bin's."""
    return np.floor(np.log2(length_N) * PER_OCTAVE + 1e-9).astype(np.int64)


class DocumentReader:
    """A prepared folder and the tokenizer in it."""

    def __init__(self, folder: Path) -> None:
        """Open a prepared folder.

        Args:
            folder: A folder that `braingpt data prepare` wrote.

        Raises:
            UserError: The folder is not prepared, is damaged, or holds another tokenizer than its tokens'.
        """
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        check_sizes(folder, self.manifest)
        self.tokenizer = Tokenizer.load(folder / "tokenizer")
        if self.tokenizer.fingerprint != self.manifest.tokenizer.fingerprint:
            raise UserError(
                f"{folder / 'tokenizer'} is not the tokenizer of these tokens; "
                f"prepare it again: {prepare_command(folder)} --force"
            )

    def streams(
        self, language: str | None = None, source: str | None = None, split: str | None = None
    ) -> list[TokenStream]:
        """The streams of a language, a source and a split; None means any.

        Raises UserError where a name is unknown, or no stream has all of them.
        """
        every = self.manifest.streams
        for field_name, wanted, known in (
            ("language", language, {stream.language for stream in every}),
            ("source", source, {stream.source for stream in every}),
            ("split", split, set(SPLITS)),
        ):
            if wanted is not None and wanted not in known:
                raise UserError(f"{self.folder} has no {field_name} '{wanted}'{did_you_mean(wanted, known)}")
        chosen = [
            one
            for one in every
            if language in (None, one.language)
            and source in (None, one.source)
            and split in (None, one.split)
        ]
        if not chosen:
            raise UserError(
                f"{self.folder} holds no documents of language '{language}' from '{source}' "
                f"in split '{split}'"
            )
        return chosen

    def draw(self, streams: list[TokenStream], count: int, seed: int = 0) -> list[StoredDocument]:
        """Different documents of some streams, drawn at random.

        Each is the document after a token drawn at random, so that long ones are not drawn more often than
        short ones.

        Args:
            streams: Where to draw from.
            count: How many documents; fewer are returned where there are fewer.
            seed: The same documents come for the same seed.
        """
        places = [(stream, file.path, self._ids(file.path)) for stream in streams for file in stream.files]
        ends = np.cumsum([len(ids) for _, _, ids in places])
        drawn: dict[tuple[str, int], StoredDocument] = {}
        random = np.random.Generator(np.random.Philox(key=seed))
        documents = sum(stream.documents for stream in streams)
        for _ in range(ATTEMPTS * min(count, documents)):
            if len(drawn) == count:
                break
            token = int(random.integers(ends[-1]))
            number = int(np.searchsorted(ends, token, side="right"))
            stream, path, ids = places[number]
            start = self._next_end(ids, token - int(ends[number] - len(ids))) + 1
            # After the last document of a file comes the first of the next.
            if start == len(ids):
                stream, path, ids = places[(number + 1) % len(places)]
                start = 0
            if (path, start) not in drawn:
                drawn[path, start] = self._document(stream, path, ids, start)
        # Where nearly all are wanted, drawing alone does not find the last ones.
        for stream, path, ids in places:
            start = 0
            while len(drawn) < count and start < len(ids):
                document = drawn.get((path, start)) or self._document(stream, path, ids, start)
                drawn[path, start] = document
                start += len(document.ids)
        return list(drawn.values())

    def count(self, progress: Callable[[int], None] = lambda tokens: None) -> list[StreamStatistics]:
        """Every stream's tokens, counted.

        `progress` is called with the number of tokens read since its last call.
        """
        entries = [self.tokenizer.token(token) for token in range(self.tokenizer.vocab_size)]
        bytes_V = np.array([len(entry) for entry in entries])
        characters_V = np.array([sum(byte & 0xC0 != 0x80 for byte in entry) for entry in entries])
        broken_V = np.array([not _whole(entry) for entry in entries])
        statistics = []
        for stream in self.manifest.streams:
            counted = StreamStatistics(stream)
            used_V = np.zeros(len(entries), dtype=np.int64)
            for file in stream.files:
                # Tokens so far of a document that began in a block before.
                begun = 0
                for ids in self._blocks(file.path):
                    check_ids(self.folder, ids, len(entries))
                    used_V += np.bincount(ids, minlength=len(entries))
                    ends = np.flatnonzero(ids == self.tokenizer.eot) + 1
                    if len(ends):
                        counted.count_lengths(np.diff(ends, prepend=-begun))
                        begun = len(ids) - int(ends[-1])
                    else:
                        begun += len(ids)
                    progress(len(ids))
            counted.tokens = int(used_V.sum())
            counted.bytes, counted.characters, counted.broken = (
                int(used_V @ each) for each in (bytes_V, characters_V, broken_V)
            )
            statistics.append(counted)
        return statistics

    def problems(self) -> list[str]:
        """What a hash cannot show, because it was so when the folder was written: token ids that the
        tokenizer does not have, counts that are not those of the files, and files that the manifest does not
        name. One line each.
        """
        lines = [problem for stream in self.manifest.streams for problem in self._unknown_tokens(stream)]
        lines = lines or self._wrong_counts()
        named = {file.path for stream in self.manifest.streams for file in stream.files}
        present = {
            path.relative_to(self.folder).as_posix()
            for split in SPLITS
            for path in (self.folder / split).glob("*")
        }
        return lines + [f"{self.folder / path} is not in the manifest" for path in sorted(present - named)]

    def _unknown_tokens(self, stream: TokenStream) -> Iterator[str]:
        for file in stream.files:
            largest = max(int(ids.max()) for ids in self._blocks(file.path))
            if largest >= self.tokenizer.vocab_size:
                yield (
                    f"{self.folder / file.path} holds token {largest}, "
                    f"beyond the vocabulary of {self.tokenizer.vocab_size}"
                )

    def _wrong_counts(self) -> list[str]:
        """A document is counted in the split where it begins, and may end in the other one."""
        counted: dict[tuple[str, str], list[int]] = {}
        for one in self.count():
            stream = one.stream
            total = counted.setdefault((stream.language, stream.source), [0, 0])
            total[0] += one.documents - stream.documents
            total[1] += one.bytes - stream.bytes
        return [
            f"{self.folder / NAME} counts {abs(off)} {what} {'too few' if off > 0 else 'too many'} "
            f"of {language} from {source}"
            for (language, source), total in counted.items()
            for off, what in zip(total, ("documents", "bytes"), strict=True)
            if off
        ]

    def _ids(self, path: str) -> np.ndarray:
        return np.memmap(
            self.folder / path, dtype=np.dtype(self.manifest.dtype).newbyteorder("<"), mode="r"
        ).view(np.ndarray)

    def _blocks(self, path: str) -> Iterator[np.ndarray]:
        ids = self._ids(path)
        for start in range(0, len(ids), BLOCK):
            yield ids[start : start + BLOCK]

    def _next_end(self, ids: np.ndarray, start: int) -> int:
        """Index of the next end of text, from `start` on; of the last token where there is none."""
        size = 1024
        while start < len(ids):
            found = np.flatnonzero(ids[start : start + size] == self.tokenizer.eot)
            if len(found):
                return start + int(found[0])
            start, size = start + size, min(2 * size, BLOCK)
        return len(ids) - 1

    def _document(self, stream: TokenStream, path: str, ids: np.ndarray, start: int) -> StoredDocument:
        end = self._next_end(ids, start)
        check_ids(self.folder, ids[start : end + 1], self.tokenizer.vocab_size)
        whole = int(ids[end]) == self.tokenizer.eot
        return StoredDocument(
            stream.split,
            stream.language,
            stream.source,
            path,
            start,
            ids[start : end + 1].astype(np.int64),
            whole,
        )


def _whole(entry: bytes) -> bool:
    try:
        entry.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
