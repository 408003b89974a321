"""The tied softmax head: one matrix looks tokens up and gives their logits, and the loss of training.

Legend: B batch, L tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.cross_entropy import linear_cross_entropy
from braingpt.kernels.linear import linear
from braingpt.model.int8 import Int8Weight, shape_only
from braingpt.model.layers import rms_norm


class TiedEmbedding(nn.Embedding):
    """The embedding, which is the head as well: `forward` looks up rows, `logits` multiplies with all."""

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__(vocab, hidden)
        self.int8: Int8Weight | None = None

    def reset_parameters(self) -> None:
        """Draw the weight from a normal distribution of standard deviation 0.02."""
        nn.init.normal_(self.weight, std=0.02)

    def to_int8(self) -> None:
        """As `Linear.to_int8`."""
        self.int8 = Int8Weight(self.weight)
        self.weight = shape_only(self.weight)

    @property
    def device(self) -> torch.device:
        """Where the weight is, in int8 too."""
        return self.weight.device if self.int8 is None else self.int8.scale.device

    def forward(self, ids: Tensor) -> Tensor:
        if self.int8 is not None:
            return self.int8.rows(ids, self.weight.dtype)
        # A sparse gradient adds the rows looked up to the head's gradient, instead of a second (V, D) of
        # zeros. On a GPU it would have to wait for their number.
        return F.embedding(ids, self.weight, sparse=self.weight.device.type == "cpu")

    def logits(self, x: Tensor) -> Tensor:
        """Multiply hidden states with every row of the embedding.

        Args:
            x: Hidden states (..., D) after the last norm.

        Returns:
            Logits (..., V).
        """
        return linear(x, self.weight.to(x.dtype)) if self.int8 is None else self.int8(x)

    def full_weight(self) -> Tensor:
        """(V, D), restored from int8 where it is held as such."""
        if self.int8 is None:
            return self.weight
        return self.int8.rows(
            torch.arange(self.num_embeddings, device=self.int8.scale.device), self.weight.dtype
        )


def next_token_loss(
    head: TiedEmbedding,
    x_BLD: Tensor,
    targets_BL: Tensor,
    reduction: str = "mean",
    middle_BLD: Tensor | None = None,
    middle_weight: float = 0.0,
) -> Tensor:
    """Cross-entropy of the next tokens, from hidden states before the last norm.

    Args:
        head: The tied head.
        x_BLD: States after the last layer.
        targets_BL: The tokens that follow; -100 is ignored.
        reduction: "mean" over the targets that count, or "none".
        middle_BLD: States after an earlier layer, from which the head predicts as well.
        middle_weight: Weight of that prediction's loss. It teaches without changing the value of the loss,
            which remains that of the last layer.

    Returns:
        Nats: a scalar, or (B, L) with "none".
    """
    x_BLD = rms_norm(x_BLD)
    weight = head.full_weight()
    if torch.is_autocast_enabled(x_BLD.device.type):
        x_BLD, weight = (t.to(torch.get_autocast_dtype(x_BLD.device.type)) for t in (x_BLD, weight))
    # torch's stubs give a function that is excluded from compilation the type of a decorator.
    cross_entropy: Callable[..., Tensor] = linear_cross_entropy  # pyright: ignore[reportAssignmentType]
    loss = cross_entropy(x_BLD.flatten(0, 1), weight, targets_BL.flatten(), reduction)
    if middle_BLD is not None:
        middle_BLD = rms_norm(middle_BLD).to(x_BLD.dtype)
        early = cross_entropy(middle_BLD.flatten(0, 1), weight, targets_BL.flatten())
        loss = loss + middle_weight * (early - early.detach())
    return loss.view_as(targets_BL) if reduction == "none" else loss
