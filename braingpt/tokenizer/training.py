"""Train a vocabulary with rustbpe: byte-level BPE over the words that `vocabulary.PATTERN` cuts.

The text is cleaned first, as in the data preparation. In NFD a Hangul syllable is two or three characters,
and the vocabulary would spend its entries on them. Merges are chosen by count, ties by the lower
ids, so the same text gives the same vocabulary, whatever the number of threads.
"""

from collections.abc import Iterable

from braingpt.errors import UserError
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.encoding import Tokenizer
from braingpt.tokenizer.vocabulary import PATTERN, SPECIALS

# BPE entries of a vocabulary where no number is asked for.
ENTRIES = 16_384
# Entries that every vocabulary begins with, one per byte.
BYTES = 256


def train(texts: Iterable[str], entries: int = ENTRIES) -> Tokenizer:
    """A tokenizer trained on texts.

    Args:
        texts: What the vocabulary is for, read once.
        entries: BPE entries, the 256 single bytes included; 64 specials follow.

    Returns:
        A tokenizer of exactly `entries` entries; the same texts give the same one.

    Raises:
        UserError: `entries` is out of range, or the texts have too few different words for so many.
    """
    if not BYTES <= entries <= 2**32 - SPECIALS:
        raise UserError(
            f"a vocabulary of {entries} entries is not possible; it needs at least {BYTES}, one per byte"
        )
    import rustbpe

    # The wheel has no type stubs.
    bpe = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    bpe.train_from_iterator(map(clean_text, texts), entries, pattern=PATTERN)
    ranks = sorted((rank, bytes(entry)) for entry, rank in bpe.get_mergeable_ranks())
    if len(ranks) < entries:
        raise UserError(
            f"the text yields only {len(ranks)} entries; "
            f"give more text, or ask for --vocab {len(ranks)} or fewer"
        )
    return Tokenizer([entry for _, entry in ranks])
