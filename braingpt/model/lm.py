"""The shell all architectures share: embedding, blocks, norm, tied head; whole sequences, one token more, and the model's own arithmetic.

Promises, each a property test over every architecture: causal in train and eval mode; `step` equals `forward`; alone equals in a batch;
padding and packed neighbours change nothing.

Legend: B batch, L tokens, D hidden, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.errors import UserError
from braingpt.kernels.cross_entropy import linear_cross_entropy
from braingpt.model.blocks import BLOCKS
from braingpt.model.config import ModelConfig
from braingpt.model.layout import Layout
from braingpt.model.parts import rms_norm
from braingpt.model.record import LayerRecord


@dataclass
class State:
    """What generation carries from token to token: one entry a layer, and how many tokens each row has read."""

    layers: list[Any]
    seen_B: Tensor

    def bytes(self) -> int:
        """Bytes held for the whole batch, counted from the tensors."""
        return sum(layer.bytes() for layer in self.layers)


class Output(NamedTuple):
    """logits: (B, L, V) when no targets were given.  loss: nats, when they were.  state: the one passed in, moved on."""

    logits: Tensor | None = None
    loss: Tensor | None = None
    state: State | None = None


class LanguageModel(nn.Module):
    """A causal language model of any of the three architectures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(BLOCKS[config.architecture](config, layer) for layer in range(config.layers))

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: State | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
    ) -> Output:
        """Whole sequences. Targets of -100 count for nothing; `reduction="none"` gives the loss of each token, (B, L).

        `segments` (B, L) numbers the documents of a packed row in rising order, -1 at padding; with a state, padding stands on the left
        and each row is one document. Raises ValueError for ids out of range of a given state's batch.
        """
        layout = self._layout(ids_BL, segments_BL, state)
        x_BLD = rms_norm(self.embedding(ids_BL))
        for i, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, layout, None if state is None else state.layers[i])
        if state is not None:
            state.seen_B = state.seen_B + (ids_BL.shape[1] if layout.valid is None else layout.valid.sum(1))
        x_BLD = rms_norm(x_BLD)
        if targets_BL is None:
            return Output(logits=F.linear(x_BLD, self.embedding.weight.to(x_BLD.dtype)), state=state)
        weight = self.embedding.weight
        if torch.is_autocast_enabled(x_BLD.device.type):
            x_BLD, weight = (t.to(torch.get_autocast_dtype(x_BLD.device.type)) for t in (x_BLD, weight))
        loss = linear_cross_entropy(x_BLD.flatten(0, 1), weight, targets_BL.flatten(), reduction)
        return Output(loss=loss.view_as(targets_BL) if reduction == "none" else loss, state=state)

    def _layout(self, ids_BL: Tensor, segments_BL: Tensor | None, state: State | None) -> Layout:
        layout = Layout.of(ids_BL, segments_BL, None if state is None else state.seen_B)
        if state is not None:
            if len(state.seen_B) != len(ids_BL):
                raise ValueError(f"the state is for {len(state.seen_B)} rows, the ids have {len(ids_BL)}")
            on_the_left = layout.valid is None or bool((layout.valid[:, 1:] >= layout.valid[:, :-1]).all())
            if layout.run is not None or not on_the_left:
                raise ValueError("with a state, each row is one document and padding stands on its left")
        return layout

    def new_state(self, batch: int = 1) -> State:
        """A state that has read nothing, for `batch` rows."""
        weight = self.embedding.weight
        layers = [block.mixer.new_state(batch, weight.device, weight.dtype) for block in self.blocks]
        return State(layers, torch.zeros(batch, dtype=torch.long, device=weight.device))

    def step(self, ids_B: Tensor, state: State) -> Tensor:
        """One token more for each row: logits (B, V) of what comes after it. The state is moved on."""
        return self(ids_B[:, None], state=state).logits[:, -1]

    def generate(self, ids: Sequence[int], max_new_tokens: int = 100, **sampling: Any) -> list[int]:
        """New token ids after `ids`; sampling as in `braingpt.inference.engine.generate`."""
        from braingpt.inference.engine import generate

        return generate(self, ids, max_new_tokens=max_new_tokens, **sampling)

    def after_step(self) -> None:
        """Move what follows training slowly (thresholds, balance, 2:4 masks). The trainer calls it after every optimizer step."""
        for module in self.modules():
            if module is not self and hasattr(module, "after_step"):
                module.after_step()

    @contextmanager
    def recording(self) -> Iterator[list[LayerRecord]]:
        """Count what each layer does in the forward passes inside the `with`."""
        records = [LayerRecord(i, block.mixer.kind) for i, block in enumerate(self.blocks)]
        parts = [(m, r) for block, r in zip(self.blocks, records, strict=True) for m in block.modules() if hasattr(m, "record")]
        hooks = [block.register_forward_pre_hook(_counting(r)) for block, r in zip(self.blocks, records, strict=True)]
        for part, record in parts:
            part.record = record
        try:
            yield records
        finally:
            for part, _ in parts:
                part.record = None
            for hook in hooks:
                hook.remove()

    def parameters_total(self) -> int:
        """All parameters, the tied embedding once."""
        return sum(p.numel() for p in self.parameters())

    def parameters_active(self) -> int:
        """Parameters one token's forward pass multiplies with: head included, embedding rows excluded."""
        return self.embedding.weight.numel() + sum(block.parameters_active() for block in self.blocks)

    def flops_per_token(self, context: int) -> float:
        """Floating-point operations of the forward pass, a token, averaged over a window of `context` tokens."""
        blocks = sum(block.mixer.flops(context) + block.mlp.flops() for block in self.blocks)
        return 2 * self.embedding.weight.numel() + blocks

    def state_bytes(self, length: int) -> int:
        """Bytes of state one sequence needs after `length` tokens, in float32."""
        return sum(block.mixer.state_bytes(length) for block in self.blocks)


def _counting(record: LayerRecord):
    """A hook that adds the tokens a block is given."""

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        record.count(tokens=args[0].shape[0] * args[0].shape[1])

    return hook


def build(recipe: Any, seed: int = 0) -> LanguageModel:
    """A fresh model in float32 from a recipe or a model configuration; the same seed gives the same weights."""
    config = getattr(recipe, "model", recipe)
    if getattr(config, "architecture", None) not in BLOCKS:
        raise UserError(f"cannot build a model from {type(recipe).__name__}; give a recipe (braingpt.load_recipe) or a model configuration")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(config)
