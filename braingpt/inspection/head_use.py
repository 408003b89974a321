"""How much of its vocabulary a model multiplies with to write a token.

Legend: B rows, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from braingpt.inference.engine import Decoder
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.model.heads.head import RowsRead
from braingpt.model.heads.vocabulary_columns import VocabularyColumns
from braingpt.model.lm import LanguageModel

# Windows that are continued, tokens read of each, and tokens written after them.
WINDOWS, PROMPT, NEW = 8, 64, 32
# How `braingpt generate` chooses by default, and a common narrower choice.
SAMPLED = Sampling(temperature=0.8, seed=0)
NARROWED = Sampling(temperature=0.8, top_p=0.9, seed=0)


@dataclass
class HeadUse:
    """The rows that a head with classes reads for a token, its classes' rows included.

    The last three are shares of the vocabulary.
    """

    classes: int
    # Words a class.
    width: int
    greedy: float
    # At a temperature of 0.8, and with top-p 0.9 as well.
    sampled: float
    narrowed: float


def head_use(model: LanguageModel, windows: Sequence[Tensor]) -> HeadUse | None:
    """Count the rows that writing reads.

    Args:
        model: The model.
        windows: (B, L) tokens each; the first of them are continued.

    Returns:
        The shares; None for a head that reads all rows.
    """
    head = model.embedding
    if not isinstance(head, VocabularyColumns):
        return None
    prompts = [row_L[None, :PROMPT] for ids_BL in windows for row_L in ids_BL][:WINDOWS]
    shares = [_share(model, head, prompts, sampling) for sampling in (Sampling(0.0), SAMPLED, NARROWED)]
    return HeadUse(head.classes, head.width, *shares)


def _share(model: LanguageModel, head: VocabularyColumns, prompts: list[Tensor], sampling: Sampling) -> float:
    """Rows read for a token, over those of the vocabulary."""
    head.rows_read = read = RowsRead()
    try:
        for prompt_1L in prompts:
            decoder, sampler = Decoder(model), Sampler(sampling)
            decoder.read(prompt_1L)
            for _ in range(NEW):
                decoder.step(decoder.sample(sampler))
    finally:
        head.rows_read = None
    return read.rows / (read.tokens * head.vocab)
