"""The tokenizer: byte-level BPE served by tiktoken, with 64 special tokens after the BPE entries.

Text is cleaned before it is encoded, as all text that models learn from is (`cleaning.py`): NFC, without
characters that have no glyph. A cleaned text comes back exactly. Text is always plain text: a literal
`<|endoftext|>` in it is spelled out in ordinary tokens, and only the attributes of `Tokenizer` (`eot`, `pad`,
`user`, `assistant`, `markers`) name the special ids. `vocabulary.py` says how the ids are laid out.

    tokenizer = Tokenizer.default()
    ids = tokenizer.encode("안녕하세요", language="ko")    # the Korean marker, then the text
    tokenizer.decode(ids)                                 # "안녕하세요"
"""

import codecs
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken

from braingpt.errors import Failure, UserError, did_you_mean, one_line
from braingpt.tokenizer.cleaning import clean_valid
from braingpt.tokenizer.language import LANGUAGES, detect, split
from braingpt.tokenizer.storage import read_vocabulary, write_vocabulary
from braingpt.tokenizer.vocabulary import (
    CONTROL,
    GROUPED_PATTERN,
    PATTERN,
    Vocabulary,
    marker_name,
    special_names,
)
from braingpt.utils.arguments import path_of


class Tokenizer:
    """A byte-level BPE vocabulary with language markers.

    Immutable; safe to share between threads and to pickle.

    Attributes:
        vocab_size: Number of ids.
        eot: Id of the end of text, which ends every document of the training data.
        pad: Id that fills rows which are too short.
        user: Id that begins a user's turn of a chat.
        assistant: Id that begins the model's turn of a chat.
        markers: Ids of the language markers, by language code.
        fingerprint: sha256 (hexadecimal) over all that decides the ids; equal for equal tokenizers.
        vocabulary: Entries, pattern and specials; see `Vocabulary`.
    """

    def __init__(
        self,
        entries: list[bytes],
        *,
        pattern: str = PATTERN,
        specials: list[str] | None = None,
        marked: Iterable[str] = LANGUAGES,
        added: Sequence[bytes] = (),
        first_special: int | None = None,
    ) -> None:
        """A tokenizer from the parts of its vocabulary; `default` and `load` give complete ones.

        Args:
            entries: Byte strings in order of merge rank; the 256 single bytes are among them.
            pattern: Regular expression that cuts text into words.
            specials: Names of the special tokens in order of id; None for control tokens, markers of
                `marked` and reserved ones.
            marked: Codes of the languages that have a marker among `specials`.
            added: Entries of later languages, whose ids and ranks follow the specials.
            first_special: Id of the first special; None for the one after the entries.
        """
        marked = tuple(marked)
        self.vocabulary = Vocabulary(
            entries,
            pattern,
            specials or special_names(marked),
            marked,
            list(added),
            len(entries) if first_special is None else first_special,
        )
        self.entries, self.pattern = entries, pattern
        self.marked, self.specials = marked, self.vocabulary.specials
        self.added, self.first_special = self.vocabulary.added, self.vocabulary.first_special
        self.first_added, self.vocab_size = self.vocabulary.first_added, self.vocabulary.size
        self.fingerprint = self.vocabulary.fingerprint
        special_ids = {name: self.first_special + index for index, name in enumerate(self.specials)}
        self.eot, self.pad, self.user, self.assistant = (special_ids[name] for name in CONTROL)
        self.markers = {code: special_ids[marker_name(code)] for code in marked}
        self._bpe = tiktoken.Encoding(
            "braingpt",
            pat_str=GROUPED_PATTERN if pattern == PATTERN else pattern,
            mergeable_ranks=self.ranks(),
            special_tokens=special_ids,
        )

    @classmethod
    def default(cls) -> "Tokenizer":
        """The shipped vocabulary: 16,384 entries trained on six languages, and 64 specials.

        Returns:
            The same object at every call; the files are read once per process.
        """
        return _default()

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer saved in a folder.

        Args:
            folder: A folder that `save` wrote, such as RUN/tokenizer.

        Returns:
            The tokenizer, checked against its fingerprint.

        Raises:
            UserError: The folder holds no tokenizer, or another program's.
            Failure: The tokenizer's files are damaged.
        """
        vocabulary = read_vocabulary(path_of("the tokenizer's folder", folder))
        try:
            return cls.from_vocabulary(vocabulary)
        except (ValueError, OverflowError) as error:
            # The encoder's own expressions know less than those that the pattern was checked with.
            raise Failure(f"the tokenizer in {folder} cannot be used: {one_line(error)}") from None

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary) -> "Tokenizer":
        """The tokenizer of a vocabulary."""
        return cls(
            vocabulary.entries,
            pattern=vocabulary.pattern,
            specials=vocabulary.specials,
            marked=vocabulary.marked,
            added=vocabulary.added,
            first_special=vocabulary.first_special,
        )

    def ranks(self) -> dict[bytes, int]:
        """Every entry's id, which is also its merge rank, in rising order."""
        return self.vocabulary.ranks()

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder; `load` needs nothing else.

        Args:
            folder: Where to write; the folder is made if need be.

        Raises:
            OSError: The folder cannot be written.
        """
        write_vocabulary(Path(folder), self.vocabulary)

    def encode(self, text: str, language: str | None = None) -> list[int]:
        """Token ids of a text.

        Args:
            text: Any Unicode text, which is cleaned first; special tokens spelled out in it are ordinary
                text.
            language: None for the text alone. A code such as "ko" puts that language's marker first. "auto"
                detects the language and puts its marker first, or none where the language is not marked.
                "split" cuts code-switched text into its languages and puts a marker before each piece.

        Returns:
            The ids, without an end of text.

        Raises:
            UserError: The language has no marker, or the text holds a lone surrogate, which UTF-8 cannot
                represent.
        """
        text = clean_valid(text)
        if language is None:
            return self._bpe.encode_ordinary(text)
        if language == "split":
            ids = []
            for code, piece in split(text, self.marked):
                ids += self._marker(code) + self._bpe.encode_ordinary(piece)
            return ids
        if language == "auto":
            return self._marker(detect(text, self.marked)) + self._bpe.encode_ordinary(text)
        if not isinstance(language, str) or language not in self.markers:
            nearest = did_you_mean(str(language), [*self.markers, "auto", "split"])
            raise UserError(f"no marker for language '{language}'{nearest}")
        return [self.markers[language], *self._bpe.encode_ordinary(text)]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode(text)` for each text, on as many threads as there are processors.

        Args:
            texts: Any Unicode texts, which are cleaned first.

        Returns:
            The ids of each text, in the order of `texts`.

        Raises:
            UserError: A text holds a lone surrogate.
        """
        if isinstance(texts, str):
            raise UserError("encode_batch takes a list of texts; encode takes one")
        return self._bpe.encode_ordinary_batch([clean_valid(text) for text in texts])

    def encode_array(self, text: str) -> np.ndarray:
        """`encode(text)` as an array: the Python integers of a text of 32 MB take 300 MB.

        Args:
            text: Any Unicode text, which is cleaned first.

        Returns:
            The ids, uint32 (tokens,), read-only.

        Raises:
            UserError: The text holds a lone surrogate.
        """
        return self._bpe.encode_to_numpy(clean_valid(text), disallowed_special=())

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text of token ids.

        Args:
            ids: Ids of this vocabulary.
            specials: Whether special tokens are spelled out; they are dropped otherwise.

        Returns:
            The text; bytes that are not UTF-8 become U+FFFD.

        Raises:
            UserError: An id is outside the vocabulary.
        """
        return self.decode_bytes(ids, specials).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """The bytes of token ids.

        Args:
            ids: Ids of this vocabulary.
            specials: Whether special tokens are spelled out; they are dropped otherwise.

        Returns:
            The bytes, which need not be complete UTF-8.

        Raises:
            UserError: An id is outside the vocabulary.
        """
        try:
            return b"".join(self.token(token, specials) for token in ids)
        except TypeError:
            raise UserError(f"decode takes a list of token ids, not {str(ids)[:60]!r}") from None

    def token(self, token: int, specials: bool = False) -> bytes:
        """The bytes that one id represents.

        Args:
            token: An id of this vocabulary.
            specials: Whether a special token gives its name.

        Returns:
            The bytes; none for a special token unless `specials`, and none for an id that another program's
            vocabulary keeps for its own specials.

        Raises:
            UserError: The id is outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise UserError(
                f"token id {token} is not in this vocabulary of {self.vocab_size}; "
                "it comes from another tokenizer"
            )
        if token < len(self.entries):
            return self.entries[token]
        if token >= self.first_added:
            return self.added[token - self.first_added]
        if specials and token >= self.first_special:
            return self.specials[token - self.first_special].encode()
        return b""

    def token_bytes(self) -> np.ndarray:
        """The number of UTF-8 bytes of each token, int32 (vocab_size,); 0 for special tokens."""
        sizes = np.zeros(self.vocab_size, dtype=np.int32)
        sizes[: len(self.entries)] = [*map(len, self.entries)]
        sizes[self.first_added :] = [*map(len, self.added)]
        return sizes

    def stream(self, specials: bool = False) -> "StreamDecoder":
        """A decoder for ids that arrive one by one.

        Args:
            specials: Whether special tokens are spelled out; they are dropped otherwise.
        """
        return StreamDecoder(self, specials)

    def _marker(self, code: str | None) -> list[int]:
        return [self.markers[code]] if code in self.markers else []

    def __reduce__(self) -> tuple:
        # The process that unpickles the default tokenizer reads its files: the entries would fill a pipe
        # three times.
        if _default.cache_info().currsize and self is _default():
            return Tokenizer.default, ()
        return Tokenizer.from_vocabulary, (self.vocabulary,)

    def __repr__(self) -> str:
        entries = f"{len(self.entries)} entries + {len(self.specials)} specials" + (
            f" + {len(self.added)} entries" if self.added else ""
        )
        return f"Tokenizer({entries}, fingerprint {self.fingerprint[:12]})"


class StreamDecoder:
    """Text from ids that arrive one by one.

    Joined, what `push` and `flush` return is what `Tokenizer.decode` gives for all the ids.
    """

    def __init__(self, tokenizer: Tokenizer, specials: bool = False) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes.

        Args:
            token: The next id.

        Returns:
            The text; empty while a character still lacks bytes (a Hangul syllable has three).

        Raises:
            UserError: The id is outside the vocabulary.
        """
        return self._decoder.decode(self._tokenizer.decode_bytes((token,), self._specials))

    def flush(self) -> str:
        """U+FFFD if the last character is incomplete, else nothing; the decoder can then be used again."""
        unfinished = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return unfinished


@cache
def _default() -> Tokenizer:
    return Tokenizer.load(Path(__file__).parent / "assets" / "default")
