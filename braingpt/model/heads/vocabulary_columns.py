"""Vocabulary columns: p(word) = p(class) p(word | class), so that a prediction multiplies with a few rows.

The vocabulary stands in about sqrt(V) classes of equal size (Goodman 2001, "Classes for fast maximum entropy
training"). A class has a row of its own, which gives its score; its words are rows of the tied embedding.
The embedding is stored class by class, so that the words of a class are consecutive rows: `slot` holds the
row of each token. Classes are those of neighbouring ids until others are set (`set_classes`).

Legend: B batch, N tokens, D hidden, V vocabulary, C classes, S words a class; C x S slots.
"""

import math

import torch
from torch import Tensor, nn

from braingpt.kernels.cross_entropy import IGNORED
from braingpt.kernels.int8 import int8_linear
from braingpt.kernels.linear import linear
from braingpt.kernels.word_softmax import word_log_probs
from braingpt.model.heads.head import ClassedTokens, TiedHead, autocast_type
from braingpt.model.heads.softmax import look_up
from braingpt.model.int8 import Int8Weight, shape_only

# Words a class are a multiple of this, which tensor cores and vector units take whole.
MULTIPLE = 16


def default_width(vocab: int) -> int:
    """Words a class for a vocabulary: the multiple of 16 nearest to its square root."""
    return max(1, round(math.sqrt(vocab) / MULTIPLE)) * MULTIPLE


class VocabularyColumns(TiedHead):
    """An embedding stored class by class, with a score for each class.

    Args:
        vocab: Tokens.
        hidden: Width of the residual stream.
        width: Words a class; None: about the square root of `vocab`.
    """

    slot: Tensor

    def __init__(self, vocab: int, hidden: int, width: int | None = None) -> None:
        super().__init__()
        self.vocab, self.width = vocab, width or default_width(vocab)
        self.classes = -(-vocab // self.width)
        self.padding = self.classes * self.width - vocab
        self.weight = nn.Parameter(torch.empty(self.classes * self.width, hidden))
        self.class_weight = nn.Parameter(torch.zeros(self.classes, hidden))
        self.class_bias = nn.Parameter(torch.zeros(self.classes))
        nn.init.normal_(self.weight, std=0.02)
        self.register_buffer("slot", torch.arange(vocab))
        # The token of each slot, the buffer that it was made from and the buffer's version.
        self._token_S: Tensor | None = None
        self._inverted, self._version = self.slot, 0
        self.int8: Int8Weight | None = None
        self.class_int8: Int8Weight | None = None

    def set_classes(self, order_V: Tensor) -> None:
        """Choose the classes of a model that has not learned anything yet.

        Args:
            order_V: All tokens, those of the first class first.
        """
        with torch.no_grad():
            self.slot[order_V.to(self.slot.device)] = torch.arange(len(order_V), device=self.slot.device)
        self._token_S = None

    def tokens(self) -> Tensor:
        """(V,) the token in each slot that holds one; the slots without a token come last."""
        # Loading and moving change or replace the buffer; a tensor of inference mode counts no changes.
        version = 0 if self.slot.is_inference() else self.slot._version
        if self._token_S is None or self._inverted is not self.slot or self._version != version:
            self._token_S, self._inverted, self._version = self.slot.argsort(), self.slot, version
        return self._token_S

    def to_int8(self) -> None:
        """As `Linear.to_int8`, for words and classes."""
        self.int8, self.class_int8 = Int8Weight(self.weight), Int8Weight(self.class_weight)
        self.weight, self.class_weight = shape_only(self.weight), shape_only(self.class_weight)

    @property
    def device(self) -> torch.device:
        """Where the weight is, in int8 too."""
        return self.slot.device

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of tokens, (..., D)."""
        # An index below 0 would count from the end; `index_select` refuses it.
        slot = self.slot.index_select(0, ids.flatten()).view(ids.shape)
        return look_up(self.weight, self.int8, slot)

    def class_log_probs(self, x: Tensor) -> Tensor:
        """Log-probabilities of the classes.

        Args:
            x: Hidden states (..., D) after the last norm.

        Returns:
            Nats (..., C), in float32 at least.
        """
        product = linear(x, self.class_weight.to(x.dtype)) if self.class_int8 is None else self.class_int8(x)
        return torch.log_softmax(_wide(product) + self.class_bias, -1)

    def logits(self, x: Tensor) -> Tensor:
        """Log-probabilities (..., V) of all tokens from hidden states (..., D)."""
        score = linear(x, self.weight.to(x.dtype)) if self.int8 is None else self.int8(x)
        score = _wide(score)
        if self.padding:
            absent = torch.arange(score.shape[-1], device=score.device) >= self.vocab
            score = score.masked_fill(absent, -torch.inf)
        word = torch.log_softmax(score.unflatten(-1, (self.classes, self.width)), -1)
        return (self.class_log_probs(x)[..., None] + word).flatten(-2).index_select(-1, self.slot)

    def losses(self, x_ND: Tensor, target_N: Tensor, reduction: str = "mean") -> Tensor:
        """As `TiedHead.losses`, multiplying with the classes and the words of each target's class."""
        counted_N = target_N != IGNORED
        if x_ND.device.type == "cpu":
            counted = counted_N.nonzero()[:, 0]
            if len(counted) == len(target_N):
                loss_N = self._losses(x_ND, target_N)
            else:
                loss_K = self._losses(x_ND[counted], target_N[counted])
                loss_N = loss_K.new_zeros(len(target_N)).index_copy(0, counted, loss_K)
        else:
            # A GPU would have to wait for the number of ignored targets. They are spread over the classes, so
            # that none becomes long.
            some_N = torch.arange(len(target_N), device=target_N.device) * self.width % len(self.slot)
            loss_N = self._losses(x_ND, torch.where(counted_N, target_N, some_N)) * counted_N
        return loss_N if reduction == "none" else loss_N.sum() / counted_N.sum().clamp(min=1)

    def _losses(self, x_ND: Tensor, target_N: Tensor) -> Tensor:
        """(N,) cross-entropy of targets, none of which is ignored."""
        x_ND = x_ND.to(autocast_type(x_ND))
        # An index below 0 would count from the end; `index_select` refuses it.
        slot_N = self.slot.index_select(0, target_N)
        class_N = slot_N // self.width
        weight = self.weight if self.int8 is None else self.int8.all_rows(x_ND.dtype)
        words_CSD = weight.unflatten(0, (self.classes, self.width))
        word_N = word_log_probs(x_ND, words_CSD, class_N, slot_N % self.width, self.padding)
        return -(self.class_log_probs(x_ND).gather(1, class_N[:, None])[:, 0] + word_N)

    def next_tokens(self, x_BD: Tensor) -> ClassedTokens:
        """As `TiedHead.next_tokens`."""
        if self.rows_read:
            self.rows_read.tokens += len(x_BD)
        return ColumnTokens(self, x_BD)

    def words(self, x_D: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """As `ClassedTokens.words`, from one hidden state."""
        begin = number * self.width
        end = min(begin + self.width, self.vocab)
        if self.rows_read:
            self.rows_read.rows += end - begin
        if self.int8 is None:
            score_S = torch.mv(self.weight[begin:end].to(x_D.dtype), x_D)
        else:
            score_S = int8_linear(x_D[None], self.int8.values[begin:end], self.int8.scale[begin:end])[0]
        return torch.log_softmax(_wide(score_S), 0), self.tokens()[begin:end]

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with: the classes and the words of one class."""
        hidden = self.weight.shape[1]
        return self.classes * (hidden + 1) + self.width * hidden


class ColumnTokens(ClassedTokens):
    """The distribution of the next token, whose words are computed class by class.

    Args:
        head: The head.
        x_BD: Hidden states after the last norm.
    """

    def __init__(self, head: VocabularyColumns, x_BD: Tensor) -> None:
        self.head, self.x_BD, self.device = head, x_BD, x_BD.device
        self.width, self.vocab = head.width, head.vocab

    @torch.inference_mode()
    def logits(self) -> Tensor:
        if self.head.rows_read:
            self.head.rows_read.rows += len(self.x_BD) * (self.vocab + self.head.classes)
        return self.head.logits(self.x_BD)

    def class_log_probs(self, row: int) -> Tensor:
        if self.head.rows_read:
            self.head.rows_read.rows += self.head.classes
        return self.head.class_log_probs(self.x_BD[row])

    def words(self, row: int, number: int) -> tuple[Tensor, Tensor]:
        return self.head.words(self.x_BD[row], number)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
