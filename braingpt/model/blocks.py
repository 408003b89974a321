"""One block of each architecture: mixer, then MLP, each on normalised input and added to the residual stream."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from braingpt.device.compile import compiled_piece
from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.config import DenseConfig, V1Config, V2Config
from braingpt.model.layers import MLP, rms_norm
from braingpt.model.memory.delta_rule import DeltaMemory
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.dendritic_attention import DendriticAttention
from braingpt.model.mixers.mamba2 import Mamba2
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.sequence_layout import Layout


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.mixer, self.mlp = mixer, mlp
        # the compiled step of generation
        self._fast: Callable[..., Tensor] | None = None
        # and all else, compiled
        self._learning: Callable[..., Tensor] | None = None

    def compile_step(self, backend: str) -> None:
        """Compile the step of one row with a state, when it first comes."""
        if isinstance(self.mixer, SelectiveAttention):
            passed_by, chosen = (
                compiled_piece(self._passed_by, backend),
                compiled_piece(self._chosen, backend),
            )
            self._fast = partial(self._step_of_selective, passed_by, chosen)
        else:
            self._fast = compiled_piece(self._whole, backend)

    def compile_whole(self, backend: str) -> None:
        """Compile everything else: training. Blocks of one kind share what is compiled."""
        # what it does follows the data
        if isinstance(self.mixer, SelectiveAttention):
            self.mixer.forward = torch.compiler.disable(self.mixer.forward)
        self._learning = compiled_piece(self._whole, backend)

    def forward(self, x_BLD: Tensor, layout: Layout, state=None) -> Tensor:
        one = state is not None and x_BLD.shape[:2] == (1, 1) and layout.valid is None
        # counting looks at numbers
        fast = None if self.mixer.record is not None else self._fast if one else self._learning
        return (fast or self._whole)(x_BLD, layout, state)

    def _whole(self, x_BLD: Tensor, layout: Layout, state: Any) -> Tensor:
        x_BLD = x_BLD + self.mixer(rms_norm(x_BLD), layout, state)
        normed = rms_norm(x_BLD)
        return x_BLD + (self.mlp(normed) if isinstance(self.mlp, MLP) else self.mlp(normed, layout.valid))

    def _step_of_selective(
        self, passed_by: Callable, chosen: Callable, x_BLD: Tensor, layout: Layout, state: Any
    ) -> Tensor:
        """One compiled piece asks whether attention chooses the token and computes what the block gives where
        it does not, nine times out of ten.
        """
        score_BL, is_chosen, y_BLD = passed_by(x_BLD)
        if not is_chosen:
            return y_BLD
        self.mixer.make_ready(x_BLD, layout, state)
        return chosen(x_BLD, score_BL, layout, state)

    def _passed_by(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.mixer.selector(rms_norm(x_BLD), None), x_BLD + self.mlp(rms_norm(x_BLD), None)

    def _chosen(self, x_BLD: Tensor, score_BL: Tensor, layout: Layout, state: Any) -> Tensor:
        x_BLD = x_BLD + self.mixer.chosen(rms_norm(x_BLD), score_BL, layout, state)
        return x_BLD + self.mlp(rms_norm(x_BLD), None)

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        return self.mixer.parameters_active() + self.mlp.parameters_active()


def dense_block(config: DenseConfig, layer: int) -> Block:
    """Full attention and a dense MLP."""
    return Block(
        Attention(config.hidden, config.heads, config.rope_base, config.kv_heads),
        MLP(config.hidden, config.mlp),
    )


def v1_block(config: V1Config, layer: int) -> Block:
    """Dendritic sparse attention and silenced columns."""
    mixer = DendriticAttention(config.hidden, config.heads, config.rope_base, config.attention)
    return Block(mixer, SilencedColumns(config.hidden, config.columns, config.two_four))


def v2_block(config: V2Config, layer: int) -> Block:
    """Mamba-2, or selective attention or the delta-rule memory in the layers named for them, and sparse
    columns.
    """
    if layer in config.attention.layers:
        mixer = SelectiveAttention(
            config.hidden, config.heads, config.rope_base, config.attention.rate, config.attention.kv_heads
        )
    elif layer in config.memory.layers:
        mixer = DeltaMemory(config.hidden, config.memory)
    else:
        mixer = Mamba2(config.hidden, config.mamba)
    return Block(mixer, SparseColumns(config.hidden, config.columns))


BLOCKS = {"dense": dense_block, "v1": v1_block, "v2": v2_block}
