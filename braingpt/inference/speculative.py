"""Exact generation in fewer passes: the first layers draft, the whole model verifies (self-speculative
decoding, LayerSkip, Elhoushi et al. 2024, section 4.3).

The first layers and the head draft token after token. The results of these layers are kept: the other layers
then run on all drafted tokens at once, and their logits are the model's own. The sampler chooses from these
logits only, so the text is the text of plain decoding, greedy or sampled, however good the draft is (up to
rounding: several tokens at once may be summed in another order than one by one). A draft that the sampler
does not follow is dropped, and the caches are truncated.

Shapes: L positions, D hidden, V vocabulary; one row.
"""

import torch
from torch import Tensor

from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.inference.engine import Decoder
from braingpt.model.cache import KVCache
from braingpt.model.heads.head import AllTokens
from braingpt.model.interface import State
from braingpt.model.layers import rms_norm
from braingpt.model.lm import LanguageModel
from braingpt.model.routing.early_exit import confidence
from braingpt.model.sequence_layout import Layout


class SpeculativeDecoder(Decoder):
    """A `Decoder` of one row whose `step` often finds its logits already computed.

    Args:
        model: A model whose state can be truncated: dense or v1.
        draft_layers: The first layers, which draft.
        ahead: Most tokens that a draft holds.
        min_confidence: A draft ends at a token to which the first layers give less than this probability.

    Raises:
        UserError: The model's state cannot be truncated, or a setting is out of range.
    """

    model: LanguageModel
    state: State

    def __init__(
        self, model: LanguageModel, draft_layers: int, ahead: int = 4, min_confidence: float = 0.0
    ) -> None:
        super().__init__(model)
        if not all(isinstance(layer, KVCache) for layer in self.state.layers):
            raise UserError(
                "drafts need a dense or v1 model; a recurrent state cannot drop tokens that were drafted"
            )
        if not 1 <= draft_layers < len(model.blocks):
            raise UserError(
                f"the draft layers must be between 1 and {len(model.blocks) - 1}, not {draft_layers}"
            )
        if ahead < 1:
            raise UserError(f"a draft must hold at least 1 token, not {ahead}")
        self.draft_layers, self.ahead, self.min_confidence = draft_layers, ahead, min_confidence
        # Drafted tokens that were not chosen yet, and the logits after each.
        self._verified: list[tuple[int, Tensor]] = []
        # Drafted tokens, those of them that the sampler chose, and verifications.
        self.drafted = self.followed = self.passes = 0
        self._layers_run = 0

    def read(self, ids_BL: Tensor, segments_BL: Tensor | None = None) -> None:
        """As `Decoder.read`."""
        self._drop_draft()
        super().read(ids_BL, segments_BL)
        self._layers_run += ids_BL.shape[1] * len(self.model.blocks)

    def step(self, ids_B: Tensor) -> None:
        """Read one token; unless it was drafted, draft and verify the tokens after it."""
        token = int(ids_B[0])
        if self._verified and self._verified[0][0] == token:
            self.followed += 1
            self.next_tokens = AllTokens(self._verified.pop(0)[1])
        else:
            self._drop_draft()
            with eval_mode(self.model):
                tokens, inside_LD = self._draft(token)
                logits_LV = self._verify(inside_LD)
            self.next_tokens = AllTokens(logits_LV[:1])
            self._verified = [(token, logits_LV[i : i + 1]) for i, token in enumerate(tokens[1:], 1)]
            self.drafted += len(tokens) - 1
        self.state.seen_B = self.state.seen_B + 1

    def depth(self) -> float | None:
        """Layers computed, dropped drafts included, over those that plain decoding computes."""
        tokens = int(self.state.seen_B.sum())
        return self._layers_run / (tokens * len(self.model.blocks)) if tokens else None

    def _drop_draft(self) -> None:
        """Forget drafted tokens, and truncate the caches to what was read."""
        self._verified.clear()
        for layer in self.state.layers:
            if layer.length > int(self.state.seen_B[0]):
                layer.truncate(int(self.state.seen_B[0]))

    def _draft(self, token: int) -> tuple[list[int], Tensor]:
        """The token and the tokens drafted after it, and their states (1, L, D) after the first layers."""
        tokens, states = [token], []
        while True:
            ids_BL = torch.tensor([tokens[-1:]], device=self.device)
            x_BLD = rms_norm(self.model.embedding(ids_BL))
            layout = Layout.of(ids_BL, None, self.state.seen_B + len(tokens) - 1)
            states.append(self._run_layers(x_BLD, layout, 0, self.draft_layers))
            if len(tokens) > self.ahead:
                break
            logits_V = self.model.embedding.logits(rms_norm(states[-1]))[0, -1]
            if self.min_confidence > 0 and float(confidence(logits_V[None])) < self.min_confidence:
                break
            tokens.append(int(logits_V.argmax()))
        return tokens, torch.cat(states, 1)

    def _verify(self, inside_BLD: Tensor) -> Tensor:
        """(L, V) the model's own logits after each of the tokens."""
        layout = Layout.of(
            torch.zeros(inside_BLD.shape[:2], dtype=torch.long, device=self.device), None, self.state.seen_B
        )
        x_BLD = self._run_layers(inside_BLD, layout, self.draft_layers, len(self.model.blocks))
        self.passes += 1
        return self.model.embedding.logits(rms_norm(x_BLD))[0]

    def _run_layers(self, x_BLD: Tensor, layout: Layout, begin: int, end: int) -> Tensor:
        """The layers from `begin` to before `end`."""
        for block, state in zip(self.model.blocks[begin:end], self.state.layers[begin:end], strict=True):
            x_BLD = block(x_BLD, layout, state)
        self._layers_run += x_BLD.shape[1] * (end - begin)
        return x_BLD
