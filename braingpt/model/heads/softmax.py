"""The full softmax head: one matrix looks tokens up and gives all their logits.

Legend: N tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.cross_entropy import linear_cross_entropy
from braingpt.kernels.linear import linear
from braingpt.model.heads.head import AllTokens, NextTokens, TiedHead, autocast_type
from braingpt.model.int8 import Int8Weight, shape_only


class TiedEmbedding(TiedHead):
    """The embedding, all of whose rows predict."""

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.vocab = vocab
        self.weight = nn.Parameter(torch.empty(vocab, hidden))
        # Of standard deviation 0.02.
        nn.init.normal_(self.weight, std=0.02)
        self.int8: Int8Weight | None = None

    def to_int8(self) -> None:
        """As `Linear.to_int8`."""
        self.int8 = Int8Weight(self.weight)
        self.weight = shape_only(self.weight)

    @property
    def device(self) -> torch.device:
        """Where the weight is, in int8 too."""
        return self.weight.device if self.int8 is None else self.int8.scale.device

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of tokens, (..., D)."""
        return look_up(self.weight, self.int8, ids)

    def logits(self, x: Tensor) -> Tensor:
        """Multiply hidden states (..., D) with every row of the embedding: logits (..., V)."""
        return linear(x, self.weight.to(x.dtype)) if self.int8 is None else self.int8(x)

    def losses(self, x_ND: Tensor, target_N: Tensor, reduction: str = "mean") -> Tensor:
        """As `TiedHead.losses`."""
        dtype = autocast_type(x_ND)
        # torch's stubs give a function that is excluded from compilation the type of a decorator.
        cross_entropy: Callable[..., Tensor] = linear_cross_entropy  # pyright: ignore[reportAssignmentType]
        weight = self.weight if self.int8 is None else self.int8.all_rows(self.weight.dtype)
        return cross_entropy(x_ND.to(dtype), weight.to(dtype), target_N, reduction)

    def next_tokens(self, x_BD: Tensor) -> NextTokens:
        """As `TiedHead.next_tokens`."""
        if self.rows_read:
            self.rows_read.tokens += len(x_BD)
            self.rows_read.rows += len(x_BD) * len(self.weight)
        return AllTokens(self.logits(x_BD))

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.weight.numel()


def look_up(weight_RD: Tensor, int8: Int8Weight | None, row: Tensor) -> Tensor:
    """Rows of an embedding, from int8 where the weight is held so.

    Args:
        weight_RD: The embedding.
        int8: Its int8 copy, or None.
        row: Numbers of rows.

    Returns:
        The rows, (..., D).
    """
    if int8 is not None:
        return int8.rows(row, weight_RD.dtype)
    # A sparse gradient adds the rows looked up to the head's gradient, instead of a second (R, D) of zeros.
    # On a GPU it would have to wait for their number.
    return F.embedding(row, weight_RD, sparse=weight_RD.device.type == "cpu")
