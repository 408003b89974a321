"""A vocabulary: everything that decides the ids of a text, and its fingerprint.

Layout of the ids: BPE entries 0..n-1 in order of their merge rank (the bytes among them), then the 64
specials, then the entries added with a language later, whose merges come after all others. A vocabulary of
another program (`named.py`) keeps its own special ids free: ours begin after them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from braingpt.tokenizer.language import LANGUAGES

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
# The same words, half as fast again. In a group of their own, the branches without a look-ahead become one
# automaton; otherwise tiktoken's engine tries each branch by itself, because one branch looks ahead.
GROUPED_PATTERN = f"(?:{_PLAIN})|{_AHEAD}"

# How many special tokens every vocabulary has.
SPECIALS = 64
CONTROL = ("<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>")
# How the name of a special that no language has taken yet begins.
RESERVED = "<|reserved_"


def marker_name(code: str) -> str:
    """The special token that marks the language `code`."""
    return f"<|{code}|>"


def special_names(marked: Iterable[str] = LANGUAGES) -> list[str]:
    """The 64 special tokens in order of id: control tokens, one marker per language, reserved ones."""
    names = [*CONTROL, *map(marker_name, marked)]
    return names + [f"{RESERVED}{index}|>" for index in range(SPECIALS - len(names))]


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of.

    Attributes:
        entries: Byte strings of the BPE entries, in order of merge rank, which is their id.
        pattern: Regular expression that cuts text into words before any merge.
        specials: Names of the special tokens, in order of id.
        marked: Codes of the languages that have a marker among `specials`.
        added: Byte strings of later languages' entries; their ids and ranks follow the specials.
        first_special: Id of the first special token.
    """

    entries: list[bytes]
    pattern: str
    specials: list[str]
    marked: tuple[str, ...]
    added: list[bytes]
    first_special: int

    @property
    def first_added(self) -> int:
        """Id of the first entry of `added`."""
        return self.first_special + len(self.specials)

    @property
    def size(self) -> int:
        """Number of ids, those kept free for another program's specials included."""
        return self.first_added + len(self.added)

    def ranks(self) -> dict[bytes, int]:
        """Every entry's id, which is also its merge rank, in rising order."""
        ranks = {entry: rank for rank, entry in enumerate(self.entries)}
        return ranks | {entry: self.first_added + number for number, entry in enumerate(self.added)}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids.

        Each item is preceded by its length, so that no two vocabularies give the same bytes. What was added,
        and where the specials begin, counts only where it departs from the plain layout.
        """
        parts: list[Sequence[bytes]] = [
            self.entries,
            [self.pattern.encode()],
            [name.encode() for name in self.specials],
        ]
        if self.added or self.first_special != len(self.entries):
            parts += [self.added, [b"%d" % self.first_special]]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(b"%d;" % len(part))
            for item in part:
                digest.update(b"%d:" % len(item) + item)
        return digest.hexdigest()
