"""Settings of the parts of V2: mixers, routing, head and memories. Nothing here imports torch.

The string below a field is its description: `docs/reference/recipes.md` is made from these strings.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braingpt.model.settings import Chunk, Rounds, Settings, Size


class MambaConfig(Settings):
    """The Mamba-2 mixer (Dao & Gu 2024)."""

    layers: tuple[int, ...] | None = None
    """Layers with a Mamba mixer, counted from 0; null: every layer without another mixer. A layer without any
    mixer has columns only.
    """
    state: Size = 64
    """Size of the recurrent state of each channel."""
    head: Size = 64
    """Channels of a head."""
    expand: float = Field(default=1.0, gt=0, le=64)
    """Inner width as a multiple of `model.hidden`."""
    conv: int = Field(default=4, ge=2, le=64)
    """Taps of the causal convolution."""
    chunk: Chunk = 64
    """Tokens that the scan computes at a time."""


class SelectiveConfig(Settings):
    """Attention among the tokens that score highest, instead of the Mamba mixer."""

    layers: tuple[int, ...] = ()
    """Layers with selective attention, counted from 0."""
    rate: float = Field(default=0.10, gt=0, le=1)
    """Share of the tokens that attend and are attended to."""
    kv_heads: Size | None = None
    """Heads of keys and values, which serve equal groups of heads; null: one for each head."""


class DepthConfig(Settings):
    """Adaptive depth: easy tokens halt before the last layer."""

    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the layers that a token passes on average; 1: every token passes all."""
    exits: tuple[int, ...] | None = None
    """Layers before which tokens may halt, counted from 0; null: all from a third of the depth on."""


class MemoryConfig(Settings):
    """Associative memory written by the gated delta rule (Yang et al. 2024), instead of the Mamba mixer."""

    layers: tuple[int, ...] = ()
    """Layers with associative memory, counted from 0."""
    heads: Size = 4
    """Memories of a layer."""
    key: Size = 64
    """Channels of a key."""
    value: Size = 64
    """Channels of a value."""
    conv: int = Field(default=4, ge=2, le=64)
    """Taps of the causal convolution."""
    chunk: Chunk = 64
    """Tokens that the delta rule computes at a time."""


class HeadConfig(Settings):
    """The head, whose matrix is the embedding as well."""

    kind: Literal["full", "columns"] = "full"
    """`full`: each prediction multiplies with the whole vocabulary. `columns`: with the vocabulary's classes,
    and the words of the classes that matter.
    """
    width: Size | None = None
    """Words a class, for `columns`; null: the multiple of 16 nearest to the square root of `model.vocab`."""

    @model_validator(mode="after")
    def _width_is_read(self) -> "HeadConfig":
        if self.width and self.kind == "full":
            raise ValueError("model.head.width needs model.head.kind=columns; a full head has no classes")
        return self


class LexicalConfig(Settings):
    """Lexical memory: the last tokens look up rows of a large table, which are added to the residual stream
    where the stream asks for them.
    """

    rows: int = Field(default=0, ge=0, lt=1 << 31)
    """Rows of the table; 0: no lexical memory."""
    width: Size = 32
    """Numbers of a row."""
    hashes: Rounds = 8
    """Rows that each n-gram looks up, so that two n-grams hardly ever share all of them."""
    orders: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (2, 3)
    """Lengths of the n-grams, in tokens."""
    layers: tuple[int, ...] = (0,)
    """Layers before which the rows are added, counted from 0."""

    @model_validator(mode="after")
    def _lists_rise(self) -> "LexicalConfig":
        for key, values in (("orders", self.orders), ("layers", self.layers)):
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"model.lexical.{key} {list(values)} must rise, and not be empty")
        return self

    def before(self, layers: int) -> "LexicalConfig":
        """The lexical memory of a model with so many of the layers; none where it adds to none of them."""
        if kept := tuple(layer for layer in self.layers if layer < layers):
            return self.model_copy(update={"layers": kept})
        return LexicalConfig()

    @property
    def past(self) -> int:
        """Tokens before the present one that the n-grams reach back to."""
        return max(self.orders) - 1

    @property
    def looked_up(self) -> int:
        """Numbers that a token looks up."""
        return len(self.orders) * self.hashes * self.width
