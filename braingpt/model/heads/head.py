"""What a language model asks of its head, and what the head says about the next token.

A head holds one tied matrix: its rows are looked up for the tokens read, and multiplied with to predict.
Callers do not know with how many of the rows: all of them, or those of a few classes.

Legend: B batch, L tokens, N rows asked for, D hidden, V vocabulary, C classes, S words a class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braingpt.model.batch_checks import outside_vocabulary


@dataclass(frozen=True, eq=False)
class Rule:
    """How a token is chosen."""

    # 0: the likeliest one.
    temperature: float
    # Which tokens are candidates, as `inference.choice.Cuts`.
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    # Log-probabilities of seen tokens are multiplied with it.
    penalty: float = 1.0
    # Which tokens are seen, which are never chosen; (V,) of bool, None: none.
    seen_V: Tensor | None = None
    banned_V: Tensor | None = None


class NextTokens(ABC):
    """The distribution of the next token of each row."""

    vocab: int
    device: torch.device

    @abstractmethod
    def logits(self) -> Tensor:
        """(B, V) logits of all tokens, those of a head with classes being log-probabilities."""


class AllTokens(NextTokens):
    """The distribution that logits of the whole vocabulary give.

    Args:
        logits_BV: Logits.
    """

    def __init__(self, logits_BV: Tensor) -> None:
        self._logits_BV = logits_BV
        self.vocab, self.device = logits_BV.shape[1], logits_BV.device

    def logits(self) -> Tensor:
        return self._logits_BV


class ClassedTokens(NextTokens):
    """A distribution over classes of tokens, computed as far as it is asked for.

    p(token) = p(class) p(token | class).
    """

    # Tokens of the largest class.
    width: int

    def choose(self, rule: Rule, uniform: Callable[[], float]) -> int | None:
        """Choose the next token of the only row, where the distribution does so by itself.

        Args:
            rule: How the token is chosen.
            uniform: A fresh number in [0, 1).

        Returns:
            The token, -1 where probabilities are NaN; None where a search must find it.
        """
        return None

    @abstractmethod
    def class_log_probs(self, row: int) -> Tensor:
        """(C,) log-probabilities of the classes after a row of the batch."""

    @abstractmethod
    def words(self, row: int, number: int) -> tuple[Tensor, Tensor]:
        """The tokens of a class.

        Args:
            row: A row of the batch.
            number: The class.

        Returns:
            Log-probabilities within the class (S,), and the tokens' ids (S,).
        """


@dataclass
class RowsRead:
    """How much of its matrices a head was multiplied with to choose tokens."""

    # Tokens predicted.
    tokens: int = 0
    # Rows of words and classes multiplied with, summed over these tokens.
    rows: int = 0


class TiedHead(nn.Module, ABC):
    """An embedding that is the head as well: `forward` looks up rows, all else predicts from hidden states.

    Hidden states are those after the last norm.
    """

    # Tokens.
    vocab: int
    # (rows, D); only its shape is left while the rows are held as int8.
    weight: nn.Parameter
    # Set by those who want to know how many rows predictions are made with.
    rows_read: RowsRead | None = None

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

    Raises:
        UserError: A target is outside the vocabulary (seen on a CPU).
    """
    try:
        loss = head.losses(x_BLD.flatten(0, 1), targets_BL.flatten(), reduction)
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error) and "out of range" not in str(error):
            raise
        raise outside_vocabulary("target", targets_BL, head.vocab) from None
    if middle_BLD is not None:
        early = head.losses(middle_BLD.flatten(0, 1), targets_BL.flatten())
        loss = loss + middle_weight * (early - early.detach())
    return loss.view_as(targets_BL) if reduction == "none" else loss


def autocast_type(x: Tensor) -> torch.dtype:
    """The type of matrix products with x: x's own, or that of autocast where it is on."""
    on = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if on else x.dtype
