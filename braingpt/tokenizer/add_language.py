"""Adds a language to a vocabulary: a marker, and merges learned from its texts that come after all others.

What stays as it was, exactly:
  - every id decodes to the same bytes; the marker takes a reserved special's id, so nothing moves;
  - tokens made with the old vocabulary decode to the same text in the new one;
  - the new encoding of any text joins whole tokens of its old encoding and cuts none: BPE takes the pair of
    lowest rank first, and all old ranks are lower than the new ones, so it passes through the old encoding
    before it joins anything more. Text costs at most what it did.

What changes: the fingerprint, and with it which prepared folders fit; and ids, where the new merges apply -
in texts of the new language, and of others where they share a word.

The merges are trained by Hugging Face tokenizers on the old encoding: each old token becomes one character of
a private alphabet, so the trainer continues exactly where the old merges end (rustbpe can only begin from
bytes).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from braingpt.errors import UserError
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.encoding import Tokenizer
from braingpt.tokenizer.language import detectable
from braingpt.tokenizer.vocabulary import RESERVED, marker_name

# Entries added where no number is asked for.
ENTRIES = 2048
# One text in so many measures the cost and trains nothing.
HELD_OUT_EVERY = 10
# Private use planes: no pattern and no normalisation touches them.
_ALPHABET = [*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]


class GrownTokenizer(NamedTuple):
    """The new tokenizer, and what the held-out texts of the new language cost.

    Attributes:
        tokenizer: The tokenizer with the language added.
        characters: Characters of the held-out texts.
        before: Tokens of the held-out texts with the old tokenizer.
        after: Tokens of the held-out texts with the new one.
        detectable: Whether `language="auto"` can find the language.
    """

    tokenizer: Tokenizer
    characters: int
    before: int
    after: int
    detectable: bool


def add_language(old: Tokenizer, code: str, texts: Iterable[str], entries: int = ENTRIES) -> GrownTokenizer:
    """Add a language to a tokenizer.

    Args:
        old: The tokenizer to begin from; it stays as it is.
        code: The new language's code, such as "pt".
        texts: Texts of the new language. Every tenth is held out to measure the cost; a single text measures
            itself.
        entries: Merges to learn at most; fewer are learned where no pair is left that comes twice.

    Returns:
        The new tokenizer and what the held-out texts cost.

    Raises:
        UserError: `code` is not a language code, is marked already or finds no reserved special free, or the
            texts are too few to learn a merge from.
    """
    reserved = _reserved_special(old, code, entries)
    train: list[str] = []
    held: list[str] = []
    for number, text in enumerate(map(clean_text, texts)):
        (held if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else train).append(text)
    learned = _merges(old, train, entries)
    if not learned:
        raise UserError(
            f"the texts are too few to learn anything for '{code}'; give more texts, or several files"
        )
    grown = Tokenizer(
        old.entries,
        pattern=old.pattern,
        specials=[marker_name(code) if name == reserved else name for name in old.specials],
        marked=(*old.marked, code),
        added=[*old.added, *learned],
        first_special=old.first_special,
    )
    measured = held or train
    before, after = (sum(map(len, tokenizer.encode_batch(measured))) for tokenizer in (old, grown))
    return GrownTokenizer(grown, sum(map(len, measured)), before, after, detectable(code))


def _reserved_special(old: Tokenizer, code: str, entries: int) -> str:
    """The reserved special that becomes the marker; UserError for a request that cannot be met."""
    if not re.fullmatch("[a-z]{2,3}", code):
        raise UserError(
            f"'{code}' is not a language code; a code is two or three lowercase letters, such as pt, ja, vi"
        )
    if code in old.markers:
        raise UserError(f"the tokenizer has a marker for '{code}' already; it has {', '.join(old.markers)}")
    if entries < 1:
        raise UserError(f"--entries must be at least 1, not {entries}")
    reserved = next((name for name in old.specials if name.startswith(RESERVED)), None)
    if reserved is None:
        raise UserError(f"the tokenizer has no reserved special token left for the marker of '{code}'")
    return reserved


def _merges(old: Tokenizer, texts: list[str], entries: int) -> list[bytes]:
    """At most `entries` byte strings, in the order in which BPE joins them, none of them in `old`."""
    try:
        import regex
        from tokenizers import Tokenizer as Trained
        from tokenizers import models, pre_tokenizers, trainers
    except ImportError:
        raise UserError(
            'adding a language needs another library: pip install "braingpt[languages]"'
        ) from None

    words = regex.compile(old.pattern, regex.V1)
    spelling = _Spelling(old)
    lines = [" ".join(spelling.of(piece) for piece in words.findall(text)) for text in texts]
    # A merge may spell an old entry in another way and is then left out, so a few more merges than asked for
    # are trained.
    size = len(spelling.tokens) + entries + entries // 20 + 16
    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False)
    )
    known = old.ranks()
    joined = [
        spelled
        for spelled, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])
        if len(spelled) > 1
    ]
    learned = dict.fromkeys(
        b"".join(old.token(spelling.tokens[character]) for character in spelled) for spelled in joined
    )
    return [entry for entry in learned if entry not in known][:entries]


class _Spelling:
    """Text in the private alphabet: one character for each old token, given out as tokens are met."""

    def __init__(self, old: Tokenizer) -> None:
        self._old = old
        self._characters: dict[int, str] = {}
        self._pieces: dict[str, str] = {}
        # Character -> the old token it stands for.
        self.tokens: dict[str, int] = {}

    def of(self, piece: str) -> str:
        """The piece, spelled."""
        if piece not in self._pieces:
            self._pieces[piece] = "".join(map(self._character, self._old.encode(piece)))
        return self._pieces[piece]

    def _character(self, token: int) -> str:
        if token not in self._characters:
            if len(self.tokens) == len(_ALPHABET):
                raise UserError(
                    f"the texts use more than {len(_ALPHABET):,} different tokens; give fewer texts"
                )
            character = chr(_ALPHABET[len(self.tokens)])
            self._characters[token], self.tokens[character] = character, token
        return self._characters[token]
