"""The tokenizer: byte-level BPE served by tiktoken, with 64 special tokens after the BPE entries.

Every Unicode text comes back exactly: the encoding works on bytes and never normalises. (Bring Korean text to
NFC before training on it: in NFD it costs several times the tokens.) Text is always plain text: a literal
`<|endoftext|>` in it is spelled out in ordinary tokens, and only the attributes below (`eot`, `pad`, `user`,
`assistant`, `markers`) name the special ids.

Layout of the ids: BPE entries 0..n-1 in order of their merge rank (the bytes among them), then the 64
specials, then the entries added with a language later, whose merges come after all others. A vocabulary of
another program (`named.py`) keeps its own special ids free: ours begin after them.
"""

import codecs
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken

from braingpt.errors import UserError, did_you_mean
from braingpt.tokenizer import language as languages

# The letters of o200k_base with Hangul taken out of them and given a class of its own, so that no token holds
# both Hangul and Latin and a switch of language always falls between tokens. Runs of white space are bounded:
# without that a line of a million spaces overflows the regex engine's stack. Digits go in groups of up to
# three.
_BEFORE = r"[^\r\n\p{L}\p{N}\p{Hangul}]?"
_UPPER = r"[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]--\p{Hangul}]"
_LOWER = r"[[\p{Ll}\p{Lm}\p{Lo}\p{M}]--\p{Hangul}]"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PLAIN = "|".join(
    [
        rf"{_BEFORE}\p{{Hangul}}+",
        rf"{_BEFORE}{_UPPER}*{_LOWER}+{_ENGLISH}",
        rf"{_BEFORE}{_UPPER}+{_LOWER}*{_ENGLISH}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s{0,128}[\r\n]+",
    ]
)
_AHEAD = r"\s{1,128}(?!\S)|\s{1,128}"
PATTERN = f"{_PLAIN}|{_AHEAD}"
# The same words, half as fast again: in a group of their own, the branches that look at nothing ahead are one
# automaton; without it, tiktoken's engine tries each by itself, because of the one that does look ahead.
_GROUPED = f"(?:{_PLAIN})|{_AHEAD}"
SPECIALS = 64
CONTROL = ("<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>")


def special_names(marked: Iterable[str] = languages.LANGUAGES) -> list[str]:
    """The 64 special tokens in order of id: control tokens, one marker per language, reserved ones."""
    names = [*CONTROL, *(f"<|{code}|>" for code in marked)]
    return names + [f"<|reserved_{index}|>" for index in range(SPECIALS - len(names))]


class Tokenizer:
    """A byte-level BPE vocabulary with language markers.

    Immutable; safe to share between threads and to pickle.
    """

    def __init__(
        self,
        entries: list[bytes],
        *,
        pattern: str = PATTERN,
        specials: list[str] | None = None,
        marked: Iterable[str] = languages.LANGUAGES,
        added: Sequence[bytes] = (),
        first_special: int | None = None,
    ):
        """`entries`: the byte strings in order of merge rank.

        `marked`: the languages that have a marker among `specials`.

        `added`: entries of later languages, whose ids and ranks follow the specials. `first_special`: the id
            where the specials begin; after the entries for None.
        """
        self.entries = entries
        self.pattern = pattern
        self.marked = tuple(marked)
        self.specials = specials or special_names(self.marked)
        self.added = list(added)
        self.first_special = len(entries) if first_special is None else first_special
        self.first_added = self.first_special + len(self.specials)
        self.vocab_size = self.first_added + len(self.added)
        ids = {name: self.first_special + index for index, name in enumerate(self.specials)}
        self.eot, self.pad, self.user, self.assistant = (ids[name] for name in CONTROL)
        self.markers = {code: ids[f"<|{code}|>"] for code in self.marked}
        words = _GROUPED if pattern == PATTERN else pattern
        self._bpe = tiktoken.Encoding(
            "braingpt", pat_str=words, mergeable_ranks=self.ranks(), special_tokens=ids
        )
        self.fingerprint = fingerprint_of(entries, pattern, self.specials, self.added, self.first_special)

    @classmethod
    def default(cls) -> "Tokenizer":
        """The shipped vocabulary: 16,384 entries trained on six languages, 64 specials.

        Read once per process.
        """
        return _default()

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer saved in `folder`.

        UserError when there is none or it is another program's; Failure when it is damaged.
        """
        from braingpt.tokenizer.storage import read

        return cls(**read(Path(folder)))

    def ranks(self) -> dict[bytes, int]:
        """Every entry's id, which is also its merge rank, in rising order."""
        ranks = {entry: rank for rank, entry in enumerate(self.entries)}
        return ranks | {entry: self.first_added + number for number, entry in enumerate(self.added)}

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into `folder` (made if need be); `load` needs nothing else."""
        from braingpt.tokenizer.storage import write

        write(Path(folder), self)

    def encode(self, text: str, language: str | None = None) -> list[int]:
        """Token ids of `text`.

        `language`: None for the text alone; a code such as "ko" puts that language's marker first; "auto"
            detects the language and puts its marker first (none if it is not among the marked ones); "split"
            cuts code-switched text into its languages and puts a marker before each piece. UserError for an
            unknown language, or text holding a lone surrogate, which no encoding can represent.
        """
        _check_text(text)
        if language is None:
            return self._bpe.encode_ordinary(text)
        if language == "split":
            ids = []
            for code, piece in languages.split(text, self.marked):
                ids += self._marker(code) + self._bpe.encode_ordinary(piece)
            return ids
        if language == "auto":
            return self._marker(languages.detect(text, self.marked)) + self._bpe.encode_ordinary(text)
        if language not in self.markers:
            raise UserError(
                f"no marker for language '{language}'{did_you_mean(language, [*self.markers, 'auto', 'split'])}"
            )
        return [self.markers[language], *self._bpe.encode_ordinary(text)]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode(text)` for each text, on as many threads as there are processors."""
        for text in texts:
            _check_text(text)
        return self._bpe.encode_ordinary_batch(texts)

    def encode_array(self, text: str) -> np.ndarray:
        """`encode(text)` as uint32, read-only: the Python integers of a text of 32 MB take 300 MB."""
        _check_text(text)
        return self._bpe.encode_to_numpy(text, disallowed_special=())

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text of `ids`. Bytes that are no UTF-8 become U+FFFD; special tokens are dropped, or spelled
        out with `specials`.
        """
        return self.decode_bytes(ids, specials).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """The bytes of `ids`. UserError for an id outside the vocabulary."""
        return b"".join(self.token(token, specials) for token in ids)

    def token(self, token: int, specials: bool = False) -> bytes:
        """The bytes one id stands for; empty for a special token unless `specials`, and for an id that
        another program's vocabulary keeps for its own specials. UserError for an id outside the
        vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise UserError(
                f"token id {token} is not in this vocabulary of {self.vocab_size}; it comes from another tokenizer"
            )
        if token < len(self.entries):
            return self.entries[token]
        if token >= self.first_added:
            return self.added[token - self.first_added]
        return (
            self.specials[token - self.first_special].encode()
            if specials and token >= self.first_special
            else b""
        )

    def token_bytes(self) -> np.ndarray:
        """How many UTF-8 bytes each token stands for, int32 (vocab_size,); 0 for special tokens."""
        sizes = np.zeros(self.vocab_size, dtype=np.int32)
        sizes[: len(self.entries)] = [*map(len, self.entries)]
        sizes[self.first_added :] = [*map(len, self.added)]
        return sizes

    def stream(self, specials: bool = False) -> "StreamDecoder":
        """A decoder for ids that arrive one by one."""
        return StreamDecoder(self, specials)

    def _marker(self, code: str | None) -> list[int]:
        return [self.markers[code]] if code in self.markers else []

    def __reduce__(self):
        # read anew by who takes it: its entries would fill a pipe three times
        if _default.cache_info().currsize and self is _default():
            return Tokenizer.default, ()
        return _rebuild, (
            self.entries,
            self.pattern,
            self.specials,
            self.marked,
            self.added,
            self.first_special,
        )

    def __repr__(self) -> str:
        entries = f"{len(self.entries)} entries + {len(self.specials)} specials" + (
            f" + {len(self.added)} entries" if self.added else ""
        )
        return f"Tokenizer({entries}, fingerprint {self.fingerprint[:12]})"


class StreamDecoder:
    """Text from ids that arrive one by one.

    Joined, what `push` and `flush` return is what `Tokenizer.decode` gives for all the ids.
    """

    def __init__(self, tokenizer: Tokenizer, specials: bool = False):
        self._tokenizer = tokenizer
        self._specials = specials
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that became whole with `token`; empty while a character still lacks bytes (a Hangul
        syllable has three).
        """
        return self._decoder.decode(self._tokenizer.token(token, self._specials))

    def flush(self) -> str:
        """What is left at the end: U+FFFD if the last character never became whole, otherwise nothing.

        The decoder can be used again.
        """
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


@cache
def _default() -> Tokenizer:
    return Tokenizer.load(Path(__file__).parent / "assets" / "default")


def _rebuild(
    entries: list[bytes],
    pattern: str,
    specials: list[str],
    marked: tuple[str, ...],
    added: list[bytes],
    first_special: int,
) -> Tokenizer:
    return Tokenizer(
        entries, pattern=pattern, specials=specials, marked=marked, added=added, first_special=first_special
    )


def _check_text(text: str) -> None:
    """tiktoken would quietly replace lone surrogates, and the round trip would no longer be exact."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"the text holds a lone surrogate (U+{code:04X}) at character {error.start}; it is not valid Unicode"
        ) from None


def fingerprint_of(
    entries: Sequence[bytes],
    pattern: str,
    specials: Sequence[str],
    added: Sequence[bytes] = (),
    first_special: int | None = None,
) -> str:
    """sha256 over all that decides the ids.

    Each item is preceded by its length, so that no two vocabularies give the same bytes.

    What was added, and where the specials begin, counts only where it departs from the plain layout.
    """
    parts = [entries, [pattern.encode()], [name.encode() for name in specials]]
    if added or first_special not in (None, len(entries)):
        parts += [added, [b"%d" % (len(entries) if first_special is None else first_special)]]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d;" % len(part))
        for item in part:
            digest.update(b"%d:" % len(item) + item)
    return digest.hexdigest()
