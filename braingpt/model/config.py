"""Settings of the three architectures, checked. Nothing here imports torch.

Every setting is read by the model it belongs to; an unknown key is refused.
The string below a field is its description: `docs/reference/recipes.md` is made from these strings.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from braingpt.model.config_parts import (
    DepthConfig,
    HeadConfig,
    LexicalConfig,
    MambaConfig,
    MemoryConfig,
    SelectiveConfig,
)
from braingpt.model.settings import Rounds, Settings, Size

# 16,384 byte-pair entries and 64 special tokens: a multiple of 64 that fits uint16.
VOCAB = 16_448


class Shell(Settings):
    """What all architectures share: embedding, `layers` blocks of width `hidden`, tied head."""

    layers: int = Field(ge=1, le=1024)
    """Number of blocks."""
    hidden: int = Field(ge=8, le=65_536)
    """Width of the residual stream."""
    heads: Size
    """Attention heads; `model.hidden` is an even multiple of this number."""
    vocab: int = Field(default=VOCAB, ge=2, le=65_536)
    """Entries of the vocabulary, special tokens included."""
    rope_base: float = Field(default=10_000.0, gt=1)
    """Base of the rotary position embedding's angles."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "Shell":
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                f"model.hidden ({self.hidden}) must be an even multiple of model.heads ({self.heads})"
            )
        return self

    @property
    def depth_exits(self) -> tuple[int, ...]:
        """Layers before which tokens may halt; none where every token passes all layers."""
        return ()


def _check_kv_heads(heads: int, kv_heads: int | None, key: str) -> None:
    if kv_heads and heads % kv_heads:
        raise ValueError(f"model.heads ({heads}) must be a multiple of {key} ({kv_heads})")


class DenseConfig(Shell):
    """A causal transformer with rotary positions, RMSNorm, normalised queries and keys, and an MLP with
    squared ReLU: the baseline.
    """

    architecture: Literal["dense"] = "dense"
    """Name of the architecture."""
    mlp: int = Field(ge=1, le=1 << 20)
    """Neurons of each MLP."""
    kv_heads: Size | None = None
    """Heads of keys and values, which serve equal groups of heads (Ainslie et al. 2023); null: one for each
    head.
    """

    @model_validator(mode="after")
    def _groups_fit(self) -> "DenseConfig":
        _check_kv_heads(self.heads, self.kv_heads, "model.kv_heads")
        return self


class SparseAttentionConfig(Settings):
    """V1's attention: each query keeps its causal scores of largest magnitude."""

    keep: float = Field(default=0.05, gt=0, le=1)
    """Share of the causal scores that a query keeps, those of largest magnitude."""
    floor: Size = 4
    """Keys that a query keeps at least."""
    dendrites: Size = 4
    """Groups of heads, each with a gate of its own; divides `model.heads`."""
    gate_threshold: float = Field(default=0.1, ge=0, lt=1)
    """Value of the gate at or below which a dendrite is closed for the token."""


class ColumnsConfig(Settings):
    """An MLP split into columns that compete for each token by inhibiting each other."""

    count: Size = 32
    """Columns of each layer."""
    width: Size = 64
    """Neurons of a column."""
    active: Size = 2
    """Columns that win each token."""
    rounds: Rounds = 1
    """Rounds of lateral inhibition before the winners are chosen."""

    @model_validator(mode="after")
    def _winners_exist(self) -> "ColumnsConfig":
        if self.active > self.count:
            raise ValueError(
                f"model.columns.active ({self.active}) is more than model.columns.count ({self.count})"
            )
        return self


class SharedColumnsConfig(ColumnsConfig):
    """Columns that run only for the tokens they win, and shared columns that run for every token."""

    shared: int = Field(default=1, ge=0, le=65_536)
    """Further columns that run for every token."""


class SilencedColumnsConfig(ColumnsConfig):
    """Columns that are all computed; only the strongest of the winners' neurons fire."""

    firing: float = Field(default=0.05, gt=0, le=1)
    """Largest share of a layer's neurons that fires for a token."""

    @model_validator(mode="after")
    def _some_may_fire(self) -> "SilencedColumnsConfig":
        if not self.most_firing:
            raise ValueError(
                f"model.columns.firing ({self.firing:g}) of {self.count} columns of {self.width} neurons "
                "is less than one neuron;"
                f" it takes {1 / (self.count * self.width):.2g} or more"
            )
        return self

    @property
    def most_firing(self) -> int:
        """Neurons that may fire for one token."""
        # The small term makes 0.05 x 20 one neuron despite rounding.
        return min(self.active * self.width, int(self.firing * self.count * self.width + 1e-9))


class EarlyExitConfig(Settings):
    """Early exit: a token leaves where the head is sure enough of the next one (LayerSkip, Elhoushi et al.
    2024).
    """

    loss: float = Field(default=0.0, ge=0)
    """Weight of the loss of a prediction from a layer in between, drawn for each step."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows for which training drops the last layer; earlier layers are dropped less often."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Probability of the likeliest next token at which a token leaves; null: no token leaves."""
    places: tuple[int, ...] | None = None
    """Layers before which tokens may leave, counted from 0; null: all from a third of the depth on."""


class V1Config(Shell):
    """The cortical-column transformer: dendritic sparse attention and competing columns with 2:4 weights."""

    architecture: Literal["v1"] = "v1"
    """Name of the architecture."""
    attention: SparseAttentionConfig = SparseAttentionConfig()
    """Dendritic sparse attention, in every layer."""
    columns: SilencedColumnsConfig = SilencedColumnsConfig(active=3, rounds=4)
    """The columns of every layer."""
    two_four: bool = True
    """Whether the columns' weights have at most two non-zeros among every four inputs."""
    early_exit: EarlyExitConfig = EarlyExitConfig()
    """Early exit in training and in use."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> "V1Config":
        places = self.early_exit.places or ()
        if any(not 0 < place < self.layers for place in places):
            raise ValueError(f"model.early_exit.places {list(places)} must lie in 1..{self.layers - 1}")
        if self.heads % self.attention.dendrites:
            raise ValueError(
                f"model.heads ({self.heads}) must be a multiple of model.attention.dendrites "
                f"({self.attention.dendrites})"
            )
        if self.two_four and (self.hidden % 4 or self.columns.width % 4):
            raise ValueError("model.two_four needs model.hidden and model.columns.width to be multiples of 4")
        return self


class V2Config(Shell):
    """Mamba-2 mixers, selective attention and associative memory in a few layers, columns that run only for
    the tokens they win.
    """

    architecture: Literal["v2"] = "v2"
    """Name of the architecture."""
    mamba: MambaConfig = MambaConfig()
    """The Mamba-2 mixers."""
    attention: SelectiveConfig = SelectiveConfig()
    """Selective attention."""
    memory: MemoryConfig = MemoryConfig()
    """Associative memory."""
    lexical: LexicalConfig = LexicalConfig()
    """Lexical memory."""
    columns: SharedColumnsConfig = SharedColumnsConfig()
    """The columns of every layer."""
    depth: DepthConfig = DepthConfig()
    """Adaptive depth."""
    head: HeadConfig = HeadConfig()
    """The head."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> "V2Config":
        _check_kv_heads(self.heads, self.attention.kv_heads, "model.attention.kv_heads")
        inner = self.hidden * self.mamba.expand
        if inner % self.mamba.head:
            raise ValueError(
                f"model.hidden x model.mamba.expand ({inner:g}) must be a multiple of model.mamba.head "
                f"({self.mamba.head})"
            )
        self._check_mixer_layers()
        exits = self.depth_exits
        if list(exits) != sorted(set(exits)) or any(not 0 < layer < self.layers for layer in exits):
            raise ValueError(f"model.depth.exits {list(exits)} must rise and lie in 1..{self.layers - 1}")
        if exits and self.depth.share * self.layers <= exits[0]:
            raise ValueError(
                f"model.depth.share ({self.depth.share:g}) must be more than {exits[0] / self.layers:.2f}: "
                f"all tokens pass the {exits[0]} layers before the first exit"
            )
        self._check_lexical_layers()
        return self

    def _check_mixer_layers(self) -> None:
        """Every layer has one mixer at most."""
        owner: dict[int, str] = {}
        for key in ("attention", "memory", "mamba"):
            layers = getattr(self, key).layers or ()
            if any(not 0 <= layer < self.layers for layer in layers):
                raise ValueError(f"model.{key}.layers {list(layers)} must lie in 0..{self.layers - 1}")
            if both := sorted(owner.keys() & {*layers}):
                raise ValueError(
                    f"model.{owner[both[0]]}.layers and model.{key}.layers both hold layer {both[0]}; "
                    "a layer has one mixer"
                )
            owner |= dict.fromkeys(layers, key)

    def mixer(self, layer: int) -> Literal["selective", "memory", "mamba", "none"]:
        """The kind of a layer's mixer."""
        if layer in self.attention.layers:
            return "selective"
        if layer in self.memory.layers:
            return "memory"
        return "mamba" if self.mamba.layers is None or layer in self.mamba.layers else "none"

    def _check_lexical_layers(self) -> None:
        """All tokens must be there where rows are added: before the first exit."""
        layers, end = self.lexical.layers, min((self.layers, *self.depth_exits))
        if self.lexical.rows and any(not 0 <= layer < end for layer in layers):
            before = ", before the first of model.depth.exits" if end < self.layers else ""
            raise ValueError(f"model.lexical.layers {list(layers)} must lie in 0..{end - 1}{before}")

    @property
    def depth_exits(self) -> tuple[int, ...]:
        """Layers before which tokens may halt; none where every token passes all layers."""
        if self.depth.share >= 1:
            return ()
        if self.depth.exits is not None:
            return self.depth.exits
        return tuple(range(max(1, math.ceil(self.layers / 3)), self.layers))


ModelConfig = Annotated[DenseConfig | V1Config | V2Config, Field(discriminator="architecture")]
