"""What a language model asks of its head, and what the head says about the next token.

A head holds one tied matrix: its rows are looked up for the tokens read, and multiplied with to predict.
Callers do not know with how many of the rows: all of them, or those of a few classes.

Legend: B batch, L tokens, N rows asked for, D hidden, V vocabulary, C classes, S words a class.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class NextTokens(ABC):
    """The distribution of the next token of each row, computed as far as it is asked for.

    Tokens stand in classes; p(token) = p(class) p(token | class). A head without classes has a single one.
    """

    # Tokens of the largest class, and tokens in all.
    width: int
    vocab: int
    device: torch.device

    @abstractmethod
    def logits(self) -> Tensor:
        """(B, V) logits of all tokens, those of a head with classes being log-probabilities."""

    @abstractmethod
    def class_log_probs(self) -> Tensor:
        """(B, C) log-probabilities of the classes."""

    @abstractmethod
    def words(self, row_N: Tensor, class_N: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of classes.

        Args:
            row_N: Rows of the batch.
            class_N: A class for each.

        Returns:
            Log-probabilities within the class (N, S), -inf where a class has fewer than S tokens; and the
            tokens' ids (N, S), 0 there.
        """


class AllTokens(NextTokens):
    """The distribution that logits of the whole vocabulary give: a single class.

    Args:
        logits_BV: Logits.
    """

    def __init__(self, logits_BV: Tensor) -> None:
        self._logits_BV = logits_BV
        self.width = self.vocab = logits_BV.shape[1]
        self.device = logits_BV.device

    def logits(self) -> Tensor:
        return self._logits_BV

    def class_log_probs(self) -> Tensor:
        return self._logits_BV.new_zeros(len(self._logits_BV), 1)

    def words(self, row_N: Tensor, class_N: Tensor) -> tuple[Tensor, Tensor]:
        ids_V = torch.arange(self.width, device=self._logits_BV.device)
        wide = torch.promote_types(self._logits_BV.dtype, torch.float32)
        return self._logits_BV[row_N].to(wide).log_softmax(1), ids_V.expand(len(row_N), -1)


class TiedHead(nn.Module, ABC):
    """An embedding that is the head as well: `forward` looks up rows, all else predicts from hidden states.

    Hidden states are those after the last norm.
    """

    # (rows, D); only its shape is left while the rows are held as int8.
    weight: nn.Parameter

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weight is, in int8 too."""

    @abstractmethod
    def forward(self, ids: Tensor) -> Tensor:
        """The rows of tokens, (..., D)."""

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits (..., V) of all tokens from hidden states (..., D)."""

    @abstractmethod
    def losses(self, x_ND: Tensor, target_N: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of target tokens; -100 is ignored.

        Args:
            x_ND: Hidden states.
            target_N: The tokens that follow.
            reduction: "mean" over the targets that count, or "none".

        Returns:
            Nats: a scalar, or (N,) with "none".
        """

    @abstractmethod
    def next_tokens(self, x_BD: Tensor) -> NextTokens:
        """The distribution of the token after each hidden state."""

    @abstractmethod
    def to_int8(self) -> None:
        """Hold the rows as int8 from now on, as `Linear.to_int8`."""

    @abstractmethod
    def parameters_active(self) -> int:
        """Weights that one token is multiplied with, to predict a token that is known."""


def next_token_loss(
    head: TiedHead,
    x_BLD: Tensor,
    targets_BL: Tensor,
    reduction: str = "mean",
    middle_BLD: Tensor | None = None,
    middle_weight: float = 0.0,
) -> Tensor:
    """Cross-entropy of the next tokens.

    Args:
        head: The head.
        x_BLD: Hidden states of the last layer, normalised.
        targets_BL: The tokens that follow; -100 is ignored.
        reduction: "mean" over the targets that count, or "none".
        middle_BLD: Normalised states of an earlier layer, from which the head predicts as well.
        middle_weight: Weight of that prediction's loss. It teaches without changing the value of the loss,
            which remains that of the last layer.

    Returns:
        Nats: a scalar, or (B, L) with "none".
    """
    loss = head.losses(x_BLD.flatten(0, 1), targets_BL.flatten(), reduction)
    if middle_BLD is not None:
        early = head.losses(middle_BLD.flatten(0, 1), targets_BL.flatten())
        loss = loss + middle_weight * (early - early.detach())
    return loss.view_as(targets_BL) if reduction == "none" else loss


def autocast_type(x: Tensor) -> torch.dtype:
    """The type of matrix products with x: x's own, or that of autocast where it is on."""
    on = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if on else x.dtype
