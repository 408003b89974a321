"""The shell all architectures share: embedding, blocks, norm, tied head; whole sequences, one token more, and
the model's own arithmetic.

Promises, each a property test over every architecture: causal in train and eval mode; `step` equals
`forward`; alone equals in a batch; padding and packed neighbours change nothing.

Legend: B batch, L tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from braingpt.device.compile import compiled_piece
from braingpt.errors import UserError
from braingpt.kernels.cross_entropy import linear_cross_entropy
from braingpt.model.blocks import BLOCKS
from braingpt.model.columns.columns import TwoFourLinear
from braingpt.model.columns.competition import Competition
from braingpt.model.config import ModelConfig
from braingpt.model.layers import TiedEmbedding, rms_norm
from braingpt.model.routing.adaptive_depth import Exit, arriving, continuing
from braingpt.model.routing.early_exit import EarlyExit
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import WorkCounters

# of a block's step, over kinds of blocks and growing caches; torch's own limit is 8
COMPILED_FORMS = 32


@dataclass
class State:
    """What generation carries from token to token: one entry a layer, how many tokens each row has read,
    through how many layers.
    """

    layers: list[Any]
    seen_B: Tensor
    # layers gone through, summed over the tokens read
    used_B: Tensor

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far went through; None before anything was read."""
        tokens = int(self.seen_B.sum())
        return int(self.used_B.sum()) / (tokens * len(self.layers)) if tokens else None

    def bytes(self) -> int:
        """Bytes held for the whole batch, counted from the tensors."""
        return sum(layer.bytes() for layer in self.layers)


class Output(NamedTuple):
    """logits: (B, L or 1, V) when no targets were given.

    loss: nats, when they were.  state: the one passed in, moved on.
    """

    logits: Tensor | None = None
    loss: Tensor | None = None
    state: State | None = None


class LanguageModel(nn.Module):
    """A causal language model of any of the three architectures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TiedEmbedding(config.vocab, config.hidden)
        self.blocks = nn.ModuleList(
            BLOCKS[config.architecture](config, layer) for layer in range(config.layers)
        )
        exits = config.depth_exits
        self.depth_rate = continuing(config.depth.share, exits, config.layers) if exits else 1.0
        self.exits = nn.ModuleList(Exit(config.hidden, self.depth_rate) for _ in exits)
        # layers between exits
        self._spans = list(pairwise((0, *exits, config.layers)))
        self._fast_head: Callable[[Tensor], Tensor] | None = None
        early = getattr(config, "early_exit", None)
        self.early = EarlyExit(early, config.layers) if early else None

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: State | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
        last: bool = False,
        at_BL: Tensor | None = None,
    ) -> Output:
        """Whole sequences. Without targets logits (B, L, V); with `last` those of the last token alone, (B,
        1, V); with `at` those of the N tokens where it is true, (N, V). Targets of -100 count for nothing;
        `reduction="none"` gives the loss of each token, (B, L).

        `segments` (B, L) numbers the documents of a packed row in rising order, -1 at padding; with a state,
        padding stands on the left and each row is one document. Raises ValueError for ids out of range of a
        given state's batch.
        """
        layout = self._layout(ids_BL, segments_BL, state)
        x_BLD = rms_norm(self.embedding(ids_BL))
        if state is not None:
            new = ids_BL.shape[1] if layout.valid is None else layout.valid.sum(1)
            state.seen_B = state.seen_B + new
            state.used_B = state.used_B + new * self._spans[0][1]
        x_BLD = (
            self._through(x_BLD, layout, state)
            if self.early is None
            else self._to_exits(x_BLD, layout, state)
        )
        if targets_BL is None:
            x_BLD = x_BLD[:, -1:] if last else x_BLD if at_BL is None else x_BLD[at_BL]
            head = self._fast_head if self._fast_head and x_BLD.shape[:-1] == (1, 1) else self._head
            return Output(logits=head(x_BLD), state=state)
        x_BLD = rms_norm(x_BLD)
        weight = self.embedding.whole_weight()
        if torch.is_autocast_enabled(x_BLD.device.type):
            x_BLD, weight = (t.to(torch.get_autocast_dtype(x_BLD.device.type)) for t in (x_BLD, weight))
        loss = linear_cross_entropy(x_BLD.flatten(0, 1), weight, targets_BL.flatten(), reduction)
        # it teaches, but the loss told stays that of the last layer
        if self.early is not None and self.early.middle is not None:
            middle_BLD, self.early.middle = rms_norm(self.early.middle).to(x_BLD.dtype), None
            early = linear_cross_entropy(middle_BLD.flatten(0, 1), weight, targets_BL.flatten())
            loss = loss + self.early.config.loss * (early - early.detach())
        return Output(loss=loss.view_as(targets_BL) if reduction == "none" else loss, state=state)

    def _head(self, x_BLD: Tensor) -> Tensor:
        return self.embedding.logits(rms_norm(x_BLD))

    def _through(self, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """All blocks, or those that the tokens' exits leave them."""
        return self._behind(0, self._between(0, x_BLD, layout, state), layout, state)

    def _between(self, span: int, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """The blocks between two exits."""
        for i in range(*self._spans[span]):
            x_BLD = self.blocks[i](x_BLD, layout, None if state is None else state.layers[i])
        return x_BLD

    def _behind(self, span: int, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """The exit behind this span, and all that follows for the tokens that go on there."""
        if span == len(self.exits):
            return x_BLD
        near = lambda x, inside: self._between(span + 1, x, inside, state)  # noqa: E731
        far = lambda x, inside: self._behind(span + 1, x, inside, state)  # noqa: E731
        x_BLD, count_B = self.exits[span](x_BLD, layout, near, far)
        if state is not None:
            begin, end = self._spans[span + 1]
            state.used_B = state.used_B + count_B * (end - begin)
        return x_BLD

    def _to_exits(self, x_BLD: Tensor, layout: Layout, state: State | None) -> Tensor:
        """All blocks, each token up to its exit."""
        if self.training and torch.is_grad_enabled() and state is None:
            return self.early.learn(self.blocks, x_BLD, layout)
        if self.early.threshold is None:
            return self._through(x_BLD, layout, state)
        layers = None if state is None else state.layers
        x_BLD, used_B = self.early.until_sure(self.blocks, x_BLD, layout, layers, self._head)
        new = x_BLD.shape[1] if layout.valid is None else layout.valid.sum(1)
        self.early.count(used_B, new)
        # counted through all layers until now
        if state is not None:
            state.used_B = state.used_B + used_B - new * len(self.blocks)
        return x_BLD

    def set_exit_threshold(self, threshold: float | None) -> None:
        """Let tokens leave where the head is so sure of the next one; None: none leaves.

        Raises UserError for a model without such exits.
        """
        if self.early is None and threshold is not None:
            raise UserError("--exit-threshold is for v1; v2 has --effort, and dense goes through all layers")
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError(f"the exit threshold is a probability above 0 and at most 1, not {threshold:g}")
        if self.early is not None:
            self.early.threshold = threshold

    def set_effort(self, share: float | None) -> None:
        """Aim at this mean share of the layers a token goes through from now on; None: the one trained for.

        Raises UserError for a model without exits or a share it cannot have.
        """
        config = self.config
        if share is None and not self.exits:
            return
        if not self.exits:
            raise UserError(
                "every token goes through all layers of this model; effort needs one trained with model.depth.share below 1"
            )
        least = config.depth_exits[0] / config.layers
        if share is not None and not least <= share <= 1:
            raise UserError(
                f"effort must lie between {least:.2f} (the layers before the first exit) and 1, not {share:g}"
            )
        rate = None if share is None else continuing(share, config.depth_exits, config.layers)
        for exit_ in self.exits:
            exit_.selector.set_rate(rate)

    def _layout(self, ids_BL: Tensor, segments_BL: Tensor | None, state: State | None) -> Layout:
        layout = Layout.of(ids_BL, segments_BL, None if state is None else state.seen_B)
        if state is not None:
            if len(state.seen_B) != len(ids_BL):
                raise ValueError(f"the state is for {len(state.seen_B)} rows, the ids have {len(ids_BL)}")
            on_the_left = layout.valid is None or bool((layout.valid[:, 1:] >= layout.valid[:, :-1]).all())
            if layout.segment is not None or not on_the_left:
                raise ValueError("with a state, each row is one document and padding stands on its left")
        return layout

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return (
            self.embedding.weight.device if self.embedding.int8 is None else self.embedding.int8.scale.device
        )

    def to_int8(self) -> None:
        """Hold linear maps, columns and the head as int8 from now on, for decoding: a quarter of the bytes.

        Not to be trained or saved after.
        """
        choosing = {id(module.router) for module in self.modules() if isinstance(module, Competition)}
        for module in list(self.modules()):
            if module is not self and hasattr(module, "to_int8") and id(module) not in choosing:
                module.to_int8()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the blocks' forward and backward passes with torch.compile, for training.

        The first step then takes some minutes.
        """
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_FORMS)
        for block in self.blocks:
            block.compile_whole(backend)

    def compile_steps(self, backend: str = "inductor") -> None:
        """Compile generation's steps of one row with torch.compile.

        The first steps then take half a minute or more, the others less.

        What is read before, and steps of more rows, run as they did. `backend`: torch.compile's.
        """
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_FORMS)
        for block in self.blocks:
            block.compile_step(backend)
        self._fast_head = compiled_piece(self._head, backend)

    def new_state(self, batch: int = 1) -> State:
        """A state that has read nothing, for `batch` rows."""
        device = self.device
        layers = [block.mixer.new_state(batch, device, self.embedding.weight.dtype) for block in self.blocks]
        seen_B = torch.zeros(batch, dtype=torch.long, device=device)
        return State(layers, seen_B, seen_B)

    def step(self, ids_B: Tensor, state: State) -> Tensor:
        """One token more for each row: logits (B, V) of what comes after it. The state is moved on."""
        return self(ids_B[:, None], state=state).logits[:, -1]

    def generate(self, ids: Sequence[int], max_new_tokens: int = 100, **sampling: Any) -> list[int]:
        """New token ids after `ids`; sampling as in `braingpt.inference.engine.generate`."""
        from braingpt.inference.engine import generate

        return generate(self, ids, max_new_tokens=max_new_tokens, **sampling)

    def after_step(self) -> None:
        """Move what follows training slowly (thresholds, balance, 2:4 masks).

        The trainer calls it after every optimizer step.
        """
        for module in self.modules():
            if module is not self and hasattr(module, "after_step"):
                module.after_step()

    def flip_rate(self) -> float | None:
        """Share of all 2:4 masks that the last `after_step` changed; None for a model without them.

        On a GPU this waits for it.
        """
        masks = [
            (module.flip_rate, module.mask.numel())
            for module in self.modules()
            if isinstance(module, TwoFourLinear)
        ]
        return (
            float(sum(rate * count for rate, count in masks)) / sum(count for _, count in masks)
            if masks
            else None
        )

    @contextmanager
    def recording(self) -> Iterator[list[WorkCounters]]:
        """Count what each layer does in the forward passes inside the `with`."""
        records = [WorkCounters(i, block.mixer.kind) for i, block in enumerate(self.blocks)]
        parts = [
            (m, r)
            for block, r in zip(self.blocks, records, strict=True)
            for m in block.modules()
            if hasattr(m, "record")
        ]
        parts += [(exit_, records[end]) for exit_, (_, end) in zip(self.exits, self._spans, strict=False)]
        hooks = [
            block.register_forward_pre_hook(_arriving(r))
            for block, r in zip(self.blocks, records, strict=True)
        ]
        hooks.append(self.register_forward_pre_hook(_reading(records), with_kwargs=True))
        for part, record in parts:
            part.record = record
        try:
            yield records
        finally:
            for part, _ in parts:
                part.record = None
            for hook in hooks:
                hook.remove()

    def arriving(self) -> list[float]:
        """The share of the tokens that comes as deep as each layer, at the trained mean depth."""
        return arriving(self.depth_rate, self.config.depth_exits, len(self.blocks))

    def parameters_total(self) -> int:
        """All parameters, the tied embedding once."""
        return sum(p.numel() for p in self.parameters())

    def parameters_active(self) -> int:
        """Parameters one token's forward pass multiplies with, at the trained mean depth: head included,
        embedding rows excluded.
        """
        share = self.arriving()
        blocks = sum(part * block.parameters_active() for part, block in zip(share, self.blocks, strict=True))
        exits = sum(
            share[begin] * exit_.parameters_active()
            for exit_, (begin, _) in zip(self.exits, self._spans, strict=False)
        )
        return self.embedding.weight.numel() + round(blocks + exits)

    def flops_per_token(self, context: int) -> float:
        """Floating-point operations of the forward pass, a token, averaged over a window of `context` tokens."""
        share = self.arriving()
        parts = zip(share, self.blocks, strict=True)
        blocks = sum(
            part * (block.mixer.flops(max(1, part * context)) + block.mlp.flops()) for part, block in parts
        )
        exits = sum(
            2 * share[begin] * exit_.parameters_active()
            for exit_, (begin, _) in zip(self.exits, self._spans, strict=False)
        )
        return 2 * self.embedding.weight.numel() + blocks + exits

    def state_bytes(self, length: int) -> int:
        """Bytes of state one sequence needs after `length` tokens, in float32."""
        share = self.arriving()
        return sum(
            block.mixer.state_bytes(round(part * length))
            for part, block in zip(share, self.blocks, strict=True)
        )


def _reading(records: list[WorkCounters]):
    """A hook that adds the tokens the model is given."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids_BL = args[0] if args else kwargs["ids_BL"]
        for record in records:
            record.count(tokens=ids_BL.numel())

    return hook


def _arriving(record: WorkCounters):
    """A hook that adds the tokens that come as deep as a block."""

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        x_BLD, layout = args[:2]
        record.count(arrived=x_BLD.shape[0] * x_BLD.shape[1] if layout.valid is None else layout.valid.sum())

    return hook


def build(recipe: Any, seed: int = 0) -> LanguageModel:
    """A fresh model in float32 from a recipe or a model configuration; the same seed gives the same weights."""
    config = getattr(recipe, "model", recipe)
    if getattr(config, "architecture", None) not in BLOCKS:
        raise UserError(
            f"cannot build a model from {type(recipe).__name__}; give a recipe (braingpt.load_recipe) or a model configuration"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(config)
