"""Exact generation in fewer passes: the first layers draft, the whole model verifies (self-speculative
decoding, LayerSkip, Elhoushi et al. 2024, section 4.3).

A draft is made by the first layers and the head, token after token. What these layers computed is kept: the
other layers then go over all drafted tokens at once, and their logits are the model's own. The sampler
chooses from those alone, so the text is the one that plain decoding writes, greedy or sampled, whatever the
draft was worth (up to rounding: several tokens at once may be summed in another order than one by one). A
draft that the sampler does not follow is dropped, and the caches go back.

Shapes: L positions, D hidden, V vocabulary; one row.
"""

import torch
from torch import Tensor, nn

from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.inference.engine import Decoder
from braingpt.model.cache import KVCache
from braingpt.model.layers import rms_norm
from braingpt.model.routing.early_exit import confidence
from braingpt.model.sequence_layout import Layout


class SpeculativeDecoder(Decoder):
    """A `Decoder` of one row whose `step` often finds its logits already computed.

    `draft_layers` layers draft up to `ahead` tokens, fewer where they are less than `least` sure of one.
    Raises UserError for a model whose state cannot go back, or with too few layers.
    """

    def __init__(self, model: nn.Module, draft_layers: int, ahead: int = 4, least: float = 0.0) -> None:
        super().__init__(model)
        if not all(isinstance(layer, KVCache) for layer in self.state.layers):
            raise UserError(
                "exact early exit needs a model that can take tokens back, dense or v1; recurrent states cannot"
            )
        if not 1 <= draft_layers < len(model.blocks):
            raise UserError(
                f"of {len(model.blocks)} layers, 1 to {len(model.blocks) - 1} can draft, not {draft_layers}"
            )
        if ahead < 1:
            raise UserError(f"at least one token is drafted, not {ahead}")
        self.draft_layers, self.most, self.least = draft_layers, ahead, least
        # drafted tokens and the logits after each
        self.ready: list[tuple[int, Tensor]] = []
        self.drafted = self.followed = self.passes = self._worked = 0

    def read(self, ids_BL: Tensor, segments_BL: Tensor | None = None) -> None:
        """As `Decoder.read`."""
        self._go_back()
        super().read(ids_BL, segments_BL)
        self._worked += ids_BL.shape[1] * len(self.model.blocks)

    def step(self, ids_B: Tensor) -> None:
        """Take in one token: the logits are there if it was drafted, else the next tokens are drafted and
        verified.
        """
        token = int(ids_B[0])
        if self.ready and self.ready[0][0] == token:
            self.followed += 1
            self.logits_BV = self.ready.pop(0)[1]
        else:
            self._go_back()
            with eval_mode(self.model):
                tokens, inside_LD = self._draft(token)
                logits_LV = self._verify(inside_LD)
            self.logits_BV = logits_LV[:1]
            self.ready = [(token, logits_LV[i : i + 1]) for i, token in enumerate(tokens[1:], 1)]
            self.drafted += len(tokens) - 1
        self.state.seen_B = self.state.seen_B + 1

    def depth(self) -> float | None:
        """Layers computed, drafts that were dropped included, over those that plain decoding computes for the
        same tokens.
        """
        tokens = int(self.state.seen_B.sum())
        return self._worked / (tokens * len(self.model.blocks)) if tokens else None

    def _go_back(self) -> None:
        self.ready.clear()
        for layer in self.state.layers:
            if layer.length > int(self.state.seen_B[0]):
                layer.forget(int(self.state.seen_B[0]))

    def _draft(self, token: int) -> tuple[list[int], Tensor]:
        """The token and those that the first layers expect to follow, and their states (1, L, D) after these
        layers.
        """
        tokens, states = [token], []
        while True:
            ids_BL = torch.tensor([tokens[-1:]], device=self.device)
            x_BLD = rms_norm(self.model.embedding(ids_BL))
            layout = Layout.of(ids_BL, None, self.state.seen_B + len(tokens) - 1)
            states.append(self._through(x_BLD, layout, 0, self.draft_layers))
            if len(tokens) > self.most:
                break
            logits_V = self.model.embedding.logits(rms_norm(states[-1]))[0, -1]
            if self.least > 0 and float(confidence(logits_V[None])) < self.least:
                break
            tokens.append(int(logits_V.argmax()))
        return tokens, torch.cat(states, 1)

    def _verify(self, inside_BLD: Tensor) -> Tensor:
        """(L, V) the whole model's logits after each of the tokens."""
        layout = Layout.of(
            torch.zeros(inside_BLD.shape[:2], dtype=torch.long, device=self.device), None, self.state.seen_B
        )
        x_BLD = self._through(inside_BLD, layout, self.draft_layers, len(self.model.blocks))
        self.passes += 1
        return self.model.embedding.logits(rms_norm(x_BLD))[0]

    def _through(self, x_BLD: Tensor, layout: Layout, begin: int, end: int) -> Tensor:
        for block, state in zip(self.model.blocks[begin:end], self.state.layers[begin:end], strict=True):
            x_BLD = block(x_BLD, layout, state)
        self._worked += x_BLD.shape[1] * (end - begin)
        return x_BLD
