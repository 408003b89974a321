"""Shapes of the three architectures, checked. Plain settings: nothing here imports torch.

Every setting is read by the model it belongs to; an unknown key is refused. Sizes are counted in neurons,
tokens and layers.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# 16,384 byte-pair entries and 64 special tokens: a multiple of 64, and it fits uint16
VOCAB = 16_448


class Settings(BaseModel):
    """A checked, immutable group of settings. Every number is finite: infinity and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Shell(Settings):
    """What all architectures share: embedding, `layers` blocks of width `hidden`, tied head."""

    # upper bounds catch slips of the hand, which would be built for hours
    layers: int = Field(ge=1, le=1024)
    hidden: int = Field(ge=8, le=65_536)
    heads: int = Field(ge=1)
    vocab: int = Field(VOCAB, ge=2, le=65_536)
    rope_base: float = Field(10_000.0, gt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "Shell":
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                f"model.hidden ({self.hidden}) must be an even multiple of model.heads ({self.heads})"
            )
        return self

    @property
    def depth_exits(self) -> tuple[int, ...]:
        """Layers before which tokens may halt; none where every token goes through all layers."""
        return ()


def _check_kv_heads(heads: int, kv_heads: int | None, key: str) -> None:
    if kv_heads and heads % kv_heads:
        raise ValueError(f"model.heads ({heads}) must be a multiple of {key} ({kv_heads})")


class DenseConfig(Shell):
    """A causal transformer with rotary positions, RMSNorm, normalised queries and keys and a squared-ReLU MLP
    of `mlp` neurons.

    `kv_heads` keys and values serve the heads in equal groups (Ainslie et al. 2023); by default each head has
    its own.
    """

    architecture: Literal["dense"] = "dense"
    mlp: int = Field(ge=1)
    kv_heads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _groups_fit(self) -> "DenseConfig":
        _check_kv_heads(self.heads, self.kv_heads, "model.kv_heads")
        return self


class SparseAttentionConfig(Settings):
    """V1's attention: each query keeps the `keep` share of its causal scores that is largest in magnitude, at
    least `floor` keys.
    """

    keep: float = Field(0.05, gt=0, le=1)
    floor: int = Field(4, ge=1)
    dendrites: int = Field(4, ge=1)
    gate_threshold: float = Field(0.1, ge=0, lt=1)


class ColumnsConfig(Settings):
    """An MLP split into `count` columns of `width` neurons, of which `active` win each token after `rounds`
    of inhibiting each other.
    """

    count: int = Field(32, ge=1)
    width: int = Field(64, ge=1)
    active: int = Field(2, ge=1)
    rounds: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _winners_exist(self) -> "ColumnsConfig":
        if self.active > self.count:
            raise ValueError(
                f"model.columns.active ({self.active}) is more than model.columns.count ({self.count})"
            )
        return self


class SharedColumnsConfig(ColumnsConfig):
    """Columns of which `shared` more run for every token."""

    shared: int = Field(1, ge=0)


class SilencedColumnsConfig(ColumnsConfig):
    """Columns of whose neurons at most the share `firing` fires for a token: the strongest of the winners'."""

    firing: float = Field(0.05, gt=0, le=1)

    @model_validator(mode="after")
    def _some_may_fire(self) -> "SilencedColumnsConfig":
        if not self.most_firing:
            raise ValueError(
                f"model.columns.firing ({self.firing:g}) of {self.count} columns of {self.width} neurons is less than one neuron;"
                f" it takes {1 / (self.count * self.width):.2g} or more"
            )
        return self

    @property
    def most_firing(self) -> int:
        """Neurons that may fire for one token."""
        # 0.05 x 20 is one neuron, not 0.99...
        return min(self.active * self.width, int(self.firing * self.count * self.width + 1e-9))


class EarlyExitConfig(Settings):
    """Training for early exit and its use: `loss` weighs the prediction from a layer in between, `dropout` is
    how often the last layer is left out.

    `threshold`: how sure the head must be of the next token for a token to leave (None: none leaves).
        `places`: the layers before which tokens may leave, numbered from 0; by default all from a third of
        the depth on.
    """

    loss: float = Field(0.0, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    threshold: float | None = Field(None, gt=0, le=1)
    places: tuple[int, ...] | None = None


class V1Config(Shell):
    """The cortical-column transformer: dendritic sparse attention, competing columns, 2:4 weights in the MLP."""

    architecture: Literal["v1"] = "v1"
    attention: SparseAttentionConfig = SparseAttentionConfig()
    columns: SilencedColumnsConfig = SilencedColumnsConfig(active=3, rounds=4)
    two_four: bool = True
    early_exit: EarlyExitConfig = EarlyExitConfig()

    @model_validator(mode="after")
    def _shapes_fit(self) -> "V1Config":
        if any(not 0 < place < self.layers for place in self.early_exit.places or ()):
            raise ValueError(
                f"model.early_exit.places {list(self.early_exit.places)} must lie in 1..{self.layers - 1}"
            )
        if self.heads % self.attention.dendrites:
            raise ValueError(
                f"model.heads ({self.heads}) must be a multiple of model.attention.dendrites ({self.attention.dendrites})"
            )
        if self.two_four and (self.hidden % 4 or self.columns.width % 4):
            raise ValueError("model.two_four needs model.hidden and model.columns.width to be multiples of 4")
        return self


class MambaConfig(Settings):
    """Mamba-2 mixer: `state` per channel, heads of `head` channels, inner width `expand` x hidden, causal
    convolution of `conv` taps.
    """

    state: int = Field(64, ge=1)
    head: int = Field(64, ge=1)
    expand: float = Field(1.0, gt=0)
    conv: int = Field(4, ge=2, le=64)
    chunk: int = Field(64, ge=1)


class SelectiveConfig(Settings):
    """Attention in `layers` (numbered from 0) over the `rate` of tokens that score highest, in place of the
    Mamba mixer there.

    `kv_heads` keys and values serve the heads in equal groups; by default each head has its own.
    """

    layers: tuple[int, ...] = ()
    rate: float = Field(0.10, gt=0, le=1)
    kv_heads: int | None = Field(None, ge=1)


class DepthConfig(Settings):
    """Adaptive depth: before each of the layers `exits` easy tokens halt; a token goes through the `share` of
    the layers on average.

    `share` 1: every token goes through all. `exits` None: before every layer from a third of the depth on.
    """

    share: float = Field(1.0, gt=0, le=1)
    exits: tuple[int, ...] | None = None


class MemoryConfig(Settings):
    """Gated delta rule in `layers` (numbered from 0) in place of the Mamba mixer there: `heads` memories from
    `key` to `value` channels.
    """

    layers: tuple[int, ...] = ()
    heads: int = Field(4, ge=1)
    key: int = Field(64, ge=1)
    value: int = Field(64, ge=1)
    conv: int = Field(4, ge=2, le=64)
    chunk: int = Field(64, ge=1)


class V2Config(Shell):
    """Mamba-2 mixers, selective attention and associative memory in a few layers, columns computed only where
    they win.
    """

    architecture: Literal["v2"] = "v2"
    mamba: MambaConfig = MambaConfig()
    attention: SelectiveConfig = SelectiveConfig()
    memory: MemoryConfig = MemoryConfig()
    columns: SharedColumnsConfig = SharedColumnsConfig()
    depth: DepthConfig = DepthConfig()

    @model_validator(mode="after")
    def _shapes_fit(self) -> "V2Config":
        _check_kv_heads(self.heads, self.attention.kv_heads, "model.attention.kv_heads")
        inner = self.hidden * self.mamba.expand
        if inner % self.mamba.head:
            raise ValueError(
                f"model.hidden x model.mamba.expand ({inner:g}) must be a multiple of model.mamba.head ({self.mamba.head})"
            )
        for key, layers in (("attention", self.attention.layers), ("memory", self.memory.layers)):
            if any(not 0 <= layer < self.layers for layer in layers):
                raise ValueError(f"model.{key}.layers {list(layers)} must lie in 0..{self.layers - 1}")
        if both := sorted({*self.attention.layers} & {*self.memory.layers}):
            raise ValueError(
                f"layer {both[0]} stands in model.attention.layers and in model.memory.layers; a layer has one mixer"
            )
        exits = self.depth_exits
        if list(exits) != sorted(set(exits)) or any(not 0 < layer < self.layers for layer in exits):
            raise ValueError(f"model.depth.exits {list(exits)} must rise and lie in 1..{self.layers - 1}")
        if exits and self.depth.share * self.layers <= exits[0]:
            raise ValueError(
                f"model.depth.share ({self.depth.share:g}) must be more than {exits[0] / self.layers:.2f}: "
                f"all tokens go through the {exits[0]} layers before the first exit"
            )
        return self

    @property
    def depth_exits(self) -> tuple[int, ...]:
        """Layers before which tokens may halt; none when every token goes through all layers."""
        if self.depth.share >= 1:
            return ()
        return (
            self.depth.exits
            if self.depth.exits is not None
            else tuple(range(max(1, math.ceil(self.layers / 3)), self.layers))
        )


ModelConfig = Annotated[DenseConfig | V1Config | V2Config, Field(discriminator="architecture")]
