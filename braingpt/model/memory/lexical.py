"""Lexical memory: what the last tokens mean together, looked up instead of computed.

The n-grams that end at a token are hashed several times each, and the hashes name rows of a large table. The
rows, side by side and normalised, are mapped to a key and a value. The value is added to the residual stream
as far as the key fits what the stream holds (a gate, as in Engram, Cheng et al. 2026, arXiv 2601.07372). So a
parameter of the table costs a token nothing: it reads `orders x hashes` rows, whatever the size of the table.

Two n-grams share one row where a hash meets another, and hardly ever all rows (hash embeddings, Svenstrup et
al. 2017). N-grams stay in their document: before its first token there is the id 0, which no token has. The
hashes are arithmetic on ids, part of what a checkpoint means, and must never change.

Legend: B batch, L tokens, D hidden, P tokens before the present one, S = L + P, R rows looked up a token, W
numbers of a row, I = R W.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.device.compile import compile_function
from braingpt.model.config import ModelConfig, V2Config
from braingpt.model.config_parts import LexicalConfig
from braingpt.model.int8 import Int8Weight, shape_only
from braingpt.model.interface import State
from braingpt.model.layers import Linear, rms_norm
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import CountedModule

# Hashes are sums of products modulo this prime. With ids below 2^17 and up to 16 of them the sums stay below
# 2^53, so that no arithmetic overflows.
PRIME = (1 << 31) - 1


class LexicalMemory(nn.Module):
    """The table, and a reader for each layer to which rows are added.

    Attributes:
        sparse_gradient: Whether the table's gradient holds only the rows looked up.
    """

    _factors: Tensor
    # nn.ModuleList, whose stubs do not know the type of its elements.
    readers: "Sequence[LexicalReader]"

    def __init__(self, hidden: int, config: LexicalConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.empty(config.rows, config.width).normal_(std=0.02))
        readers = [LexicalReader(hidden, config.looked_up) for _ in config.layers]
        self.readers = nn.ModuleList(readers)  # pyright: ignore[reportAttributeAccessIssue]
        # Underscored, as the trainer then knows that no forward pass changes them.
        self.register_buffer("_factors", torch.tensor(hash_factors(config)), persistent=False)
        self.sparse_gradient = True
        self.int8: Int8Weight | None = None
        self._compiled_step: Callable[..., tuple[Tensor, Tensor]] | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> "LexicalMemory | None":
        """The lexical memory of a model; None where it has none."""
        if isinstance(config, V2Config) and config.lexical.rows:
            return cls(config.hidden, config.lexical)
        return None

    def new_past(self, batch: int, device: torch.device) -> Tensor:
        """(B, P) what a state keeps: no token was read yet."""
        return torch.zeros(batch, self.config.past, dtype=torch.long, device=device)

    def forward(self, ids_BL: Tensor, layout: Layout, state: State | None = None) -> None:
        """Look up the n-grams that end at each token: `layout.lexical_BLI`, the normalised rows.

        Args:
            ids_BL: Token ids.
            layout: Their layout, which says where documents begin.
            state: Holds the tokens read before, and is given the last ones; None: there is no state.
        """
        past_BP = None if state is None else state.past_BP
        start_B1 = None
        if past_BP is not None and layout.valid is not None:
            start_B1 = (~layout.valid).sum(1, keepdim=True)
        one = past_BP is not None and start_B1 is None and ids_BL.shape == (1, 1)
        look_up = self._compiled_step if self._compiled_step is not None and one else self._look_up
        layout.lexical_BLI, past_BP = look_up(ids_BL, layout.position, past_BP, start_B1)
        if state is not None:
            state.past_BP = past_BP

    def _look_up(
        self, ids_BL: Tensor, position: Tensor, past_BP: Tensor | None, start_B1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rows_BLR, past_BP = self.rows_of(ids_BL, position, past_BP, start_B1)
        if self.int8 is not None:
            found_BLRW = self.int8.rows(rows_BLR, self.table.dtype)
        else:
            found_BLRW = F.embedding(rows_BLR, self.table, sparse=self.sparse_gradient)
        return rms_norm(found_BLRW.flatten(2)), past_BP

    def rows_of(
        self,
        ids_BL: Tensor,
        position: Tensor,
        past_BP: Tensor | None = None,
        start_B1: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The rows that n-grams look up.

        Args:
            ids_BL: Token ids.
            position: (B or 1, L) place of each token in its document.
            past_BP: The last tokens that a state has read, each as its id + 1; None: there is no state.
            start_B1: Tokens of padding at the left of each row; None: none.

        Returns:
            Numbers of rows (B, L, R), and the next `past`.
        """
        batch, length = ids_BL.shape
        past = self.config.past
        if past_BP is None:
            past_BP = ids_BL.new_zeros(batch, past)
        window_BS = torch.cat([past_BP, ids_BL + 1], 1)
        if start_B1 is not None:
            # The past ends where the row's tokens begin.
            places_BP = start_B1 + torch.arange(past, device=ids_BL.device)
            window_BS = window_BS.scatter(1, places_BP, past_BP)
        hashes = None
        # Newest token first; one that is not of the document counts as 0.
        for back in range(past + 1):
            word_BL = window_BS[:, past - back : past - back + length]
            if back:
                word_BL = word_BL * (position >= back)
            product = word_BL[..., None] * self._factors[back]
            hashes = self._factors[-1] + product if hashes is None else hashes + product
        assert hashes is not None
        return hashes % PRIME % self.config.rows, window_BS[:, length:]

    @property
    def factors(self) -> Tensor:
        """(P + 2, R) factors of the hashes, as `hash_factors` gives them."""
        return self._factors

    def placed(self) -> list[tuple[int, "LexicalReader"]]:
        """Each reader with the layer before which it reads."""
        return list(zip(self.config.layers, self.readers, strict=True))

    def read(self, layer: int, x_BLD: Tensor, layout: Layout) -> Tensor:
        """The residual stream before a layer, with what was looked up (`layout.lexical_BLI`) added."""
        for place, reader in self.placed():
            if place == layer:
                x_BLD = x_BLD + reader(x_BLD, layout.lexical_BLI)
        return x_BLD

    def to_int8(self) -> None:
        """As `Linear.to_int8`, with a scale for each row."""
        self.int8 = Int8Weight(self.table)
        self.table = shape_only(self.table)

    def compile_step(self, backend: str) -> None:
        """Compile the step of one row with a state."""
        self._compiled_step = compile_function(self._look_up, backend)
        for reader in self.readers:
            reader.compile_step(backend)

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with: those of the readers, not the rows looked up."""
        return sum(reader.parameters_active() for reader in self.readers)

    def flops(self) -> int:
        """Forward operations a token."""
        return 2 * self.parameters_active()

    def state_bytes(self) -> int:
        """Bytes of state for one sequence of any length."""
        return torch.long.itemsize * self.config.past


class LexicalReader(CountedModule):
    """Key, value and gate before one layer."""

    def __init__(self, hidden: int, looked_up: int) -> None:
        super().__init__()
        self.key = Linear(looked_up, hidden)
        self.value = Linear(looked_up, hidden, zero_init=True)
        self._compiled_step: Callable[[Tensor, Tensor], Tensor] | None = None

    def compile_step(self, backend: str) -> None:
        """Compile the step of one row."""
        self._compiled_step = compile_function(self._forward, backend)

    def forward(self, x_BLD: Tensor, found_BLI: Tensor) -> Tensor:
        """What is added to the stream.

        Args:
            x_BLD: Residual stream.
            found_BLI: From `LexicalMemory.forward`.

        Returns:
            (B, L, D).
        """
        if self.record is not None:
            self.record.add_flops(x_BLD.shape[:2].numel() * 2 * self.parameters_active())
        elif self._compiled_step is not None and x_BLD.shape[:2] == (1, 1):
            return self._compiled_step(x_BLD, found_BLI)
        return self._forward(x_BLD, found_BLI)

    def _forward(self, x_BLD: Tensor, found_BLI: Tensor) -> Tensor:
        key_BLD = rms_norm(self.key(found_BLI))
        fit_BL1 = (key_BLD * rms_norm(x_BLD)).sum(-1, keepdim=True) / math.sqrt(x_BLD.shape[-1])
        return torch.sigmoid(fit_BL1) * self.value(found_BLI)

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.key.weight.numel() + self.value.weight.numel()


def hash_factors(config: LexicalConfig) -> list[list[int]]:
    """The factors of the hashes: a row for each token, the newest first, and a last row of summands.

    Each column is a hash of one order; tokens beyond the order have the factor 0.

    Args:
        config: The number of hashes, and the orders.

    Returns:
        (P + 2) rows of R numbers below `PRIME`, the same everywhere and for ever.
    """
    columns = []
    for order in config.orders:
        for number in range(config.hashes):
            draws = [_mixed((order << 32) + (number << 16) + place) % PRIME for place in range(order + 1)]
            columns.append([*draws[1:], *[0] * (config.past + 1 - order), draws[0]])
    return [list(row) for row in zip(*columns, strict=True)]


def _mixed(value: int) -> int:
    """64 bits without a pattern from a number: the output function of SplitMix64 (Steele et al. 2014)."""
    mask = (1 << 64) - 1
    value = (value + 1) * 0x9E3779B97F4A7C15 & mask
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31
