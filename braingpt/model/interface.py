"""What the parts of a model ask of each other, and what a model promises to those who generate with it.

Legend: B batch, L tokens, D hidden, P tokens before the present one, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from braingpt.errors import UserError
from braingpt.model.config import ModelConfig
from braingpt.model.heads.head import AllTokens, NextTokens
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import CountedModule


class LayerState(Protocol):
    """What one mixer carries from token to token: a cache of keys and values, or a recurrent state."""

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        ...


class Mixer(CountedModule):
    """What mixes the tokens of a block: `forward(x_BLD, layout, state)` gives (B, L, D) and advances the
    state.
    """

    # Name of this kind of mixer in reports.
    kind: str

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> LayerState:
        """An empty state.

        Args:
            batch: Rows.
            device: Where the state is kept.
            dtype: Type of the values that the mixer stores.
        """
        raise NotImplementedError

    def remember(self, x_BLD: Tensor, layout: Layout, state: Any) -> None:
        """Store what later tokens read of these tokens, without computing an output.

        Mixers of models with early exit define it.
        """
        raise NotImplementedError

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        raise NotImplementedError

    def flops(self, context: float) -> float:
        """Forward operations a token, averaged over a window of `context` tokens."""
        raise NotImplementedError

    def state_bytes(self, length: int) -> int:
        """Bytes of state that one sequence of `length` tokens needs, in float32."""
        raise NotImplementedError


class GenerationState(Protocol):
    """What a model carries from token to token."""

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far passed; None before anything was read."""
        ...

    def bytes(self) -> int:
        """Bytes held for the whole batch."""
        ...


@dataclass
class State:
    """The state of a `LanguageModel`."""

    # One entry a layer.
    layers: list[Any]
    # (B,) tokens read so far.
    seen_B: Tensor
    # (B,) layers passed, summed over the tokens read.
    used_B: Tensor
    # (B, P) the last tokens read, for the lexical memory; None in a model without one.
    past_BP: Tensor | None = None

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far passed; None before anything was read."""
        tokens = int(self.seen_B.sum())
        return int(self.used_B.sum()) / (tokens * len(self.layers)) if tokens else None

    def bytes(self) -> int:
        """Bytes held for the whole batch, counted from the tensors."""
        past = 0 if self.past_BP is None else self.past_BP.numel() * self.past_BP.element_size()
        return past + sum(layer.bytes() for layer in self.layers)


class Output(NamedTuple):
    """What a forward pass returns."""

    # (B, L, V), (B, 1, V) or (N, V), when no targets were given.
    logits: Tensor | None = None
    # In nats, when targets were given.
    loss: Tensor | None = None
    # The state that was passed in, advanced.
    state: GenerationState | None = None
    # The distribution of the token after each row, where it was asked for.
    next_tokens: NextTokens | None = None


class CausalModel(nn.Module):
    """What generation and evaluation ask of a model: `forward` gives an `Output`, `step` reads one token."""

    config: ModelConfig
    device: torch.device

    def new_state(self, batch: int = 1) -> GenerationState:
        """An empty state.

        Args:
            batch: Rows.
        """
        raise NotImplementedError

    def step(self, ids_B: Tensor, state: Any) -> Tensor:
        """Read one token more of each row, and advance the state.

        Args:
            ids_B: The token of each row.
            state: From `new_state`, for as many rows.

        Returns:
            Logits (B, V) of the token that follows.

        Raises:
            UserError: The ids are no row of tokens, or the state is for another number of rows.
        """
        if state is None or ids_B.ndim != 1:
            raise UserError("step takes token ids of shape (B,) and a state from model.new_state(B)")
        return self(ids_B[:, None], state=state).logits[:, -1]

    def next_tokens(self, ids_BL: Tensor, state: Any, segments_BL: Tensor | None = None) -> NextTokens:
        """Read tokens of each row, advance the state, and predict the token that follows.

        Args:
            ids_BL: Token ids, at least one a row.
            state: From `new_state`, for as many rows.
            segments_BL: -1 at padding, which is on the left only, 0 elsewhere; None: no padding.

        Returns:
            The distribution of each row's next token.
        """
        logits_B1V = self(ids_BL, state=state, segments_BL=segments_BL, last=True).logits
        return AllTokens(logits_B1V[:, -1])
