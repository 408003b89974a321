"""One block of each architecture: mixer, then MLP, each on normalised input and added to the residual stream.

Legend: B batch, L tokens, D hidden.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.device.compile import compile_function
from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.config import DenseConfig, V1Config, V2Config
from braingpt.model.interface import Mixer
from braingpt.model.layers import MLP, rms_norm
from braingpt.model.memory.delta_rule import DeltaMemory
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.dendritic_attention import DendriticAttention
from braingpt.model.mixers.mamba2 import Mamba2
from braingpt.model.mixers.none import NoMixer
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.sequence_layout import Layout

BlockForward = Callable[[Tensor, Layout, Any], Tensor]


class Block(nn.Module):
    """x + mixer(norm(x)) where there is a mixer, then x + mlp(norm(x))."""

    mixer: Mixer
    mlp: MLP | SparseColumns | SilencedColumns

    def __init__(self, mixer: Mixer, mlp: MLP | SparseColumns | SilencedColumns) -> None:
        super().__init__()
        self.mixer, self.mlp = mixer, mlp
        # The compiled passes: one for a generation step of one row, one for everything else.
        self._compiled_step: BlockForward | None = None
        self._compiled_forward: BlockForward | None = None

    def compile_step(self, backend: str) -> None:
        """Compile the step of one row with a state, when it first runs."""
        self._compiled_step = compile_function(self._forward, backend)

    def compile_forward(self, backend: str) -> None:
        """Compile everything except that step, for training. Blocks of one kind share the compiled code."""
        self._compiled_forward = compile_function(self._forward, backend)

    def forward(self, x_BLD: Tensor, layout: Layout, state: Any = None) -> Tensor:
        """Run the block.

        Args:
            x_BLD: Residual stream.
            layout: The layout of the tokens.
            state: The mixer's state, advanced; None: whole sequences without a state.

        Returns:
            The residual stream after the block, (B, L, D).
        """
        one = state is not None and x_BLD.shape[:2] == (1, 1) and layout.valid is None
        compiled = self._compiled_step if one else self._compiled_forward
        # Counting work reads numbers, which a compiled pass cannot.
        if compiled is None or self.mixer.record is not None:
            return self._forward(x_BLD, layout, state)
        return compiled(x_BLD, layout, state)

    def _forward(self, x_BLD: Tensor, layout: Layout, state: Any) -> Tensor:
        if not isinstance(self.mixer, NoMixer):
            x_BLD = x_BLD + self.mixer(rms_norm(x_BLD), layout, state)
        normed = rms_norm(x_BLD)
        return x_BLD + (self.mlp(normed) if isinstance(self.mlp, MLP) else self.mlp(normed, layout.valid))

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.mixer.parameters_active() + self.mlp.parameters_active()


class SelectiveBlock(Block):
    """A block with selective attention, whose work depends on the data: it is compiled in two parts."""

    mixer: SelectiveAttention

    def compile_step(self, backend: str) -> None:
        """Compile the step of one row in two parts.

        The first makes the choice, and the result for a token that is not chosen: nine of ten at the usual
        rate. The second runs for a chosen token.
        """
        choose, attend = compile_function(self._choose, backend), compile_function(self._attend, backend)

        def step(x_BLD: Tensor, layout: Layout, state: Any) -> Tensor:
            score_BL, is_chosen, passed_by_BLD = choose(x_BLD)
            if not is_chosen:
                return passed_by_BLD
            self.mixer.prepare_one(x_BLD, layout, state)
            return attend(x_BLD, score_BL, layout, state)

        self._compiled_step = step

    def compile_forward(self, backend: str) -> None:
        """As `Block.compile_forward`; attention itself is not compiled."""
        uncompiled = torch.compiler.disable(self.mixer.forward)
        self.mixer.forward = uncompiled  # pyright: ignore[reportAttributeAccessIssue]
        super().compile_forward(backend)

    def _choose(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The token's score, whether it is chosen, and the block's result where it is not."""
        score_BL, chosen_BL = self.mixer.selector(rms_norm(x_BLD), None)
        return score_BL, chosen_BL, x_BLD + self.mlp(rms_norm(x_BLD), None)

    def _attend(self, x_BLD: Tensor, score_BL: Tensor, layout: Layout, state: Any) -> Tensor:
        x_BLD = x_BLD + self.mixer.attend_one(rms_norm(x_BLD), score_BL, layout, state)
        return x_BLD + self.mlp(rms_norm(x_BLD), None)


def dense_block(config: DenseConfig, layer: int) -> Block:
    """Full attention and a dense MLP."""
    mixer = Attention(config.hidden, config.heads, config.rope_base, config.kv_heads)
    return Block(mixer, MLP(config.hidden, config.mlp))


def v1_block(config: V1Config, layer: int) -> Block:
    """Dendritic sparse attention and silenced columns."""
    mixer = DendriticAttention(config.hidden, config.heads, config.rope_base, config.attention)
    return Block(mixer, SilencedColumns(config.hidden, config.columns, config.two_four))


def v2_block(config: V2Config, layer: int) -> Block:
    """Sparse columns after Mamba-2, selective attention, associative memory or no mixer."""
    hidden, attention, kind = config.hidden, config.attention, config.mixer(layer)
    if kind == "selective":
        mixer = SelectiveAttention(hidden, config.heads, config.rope_base, attention.rate, attention.kv_heads)
        return SelectiveBlock(mixer, SparseColumns(hidden, config.columns))
    if kind == "memory":
        mixer = DeltaMemory(hidden, config.memory)
    else:
        mixer = Mamba2(hidden, config.mamba) if kind == "mamba" else NoMixer()
    return Block(mixer, SparseColumns(hidden, config.columns))


BLOCKS: dict[str, Callable[[Any, int], Block]] = {"dense": dense_block, "v1": v1_block, "v2": v2_block}
