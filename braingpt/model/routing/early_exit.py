"""Early exit: a token leaves when the head, applied in the middle of the network, is sure of the next one.

Trained as LayerSkip does (Elhoushi et al. 2024, arXiv 2404.16710, section 4.1): layers are dropped for whole
rows, deeper ones more often, and the shared head also predicts from a layer in between, one drawn for each
step. At an exit a token whose likeliest continuation reaches the threshold stays as it is; deeper layers make
their keys and values from that state (CALM, Schuster et al. 2022, section 3.4), so that later tokens can read
it. Whole sequences and single steps therefore agree: what has left is only no longer changed. Steps compute
no more than the rows that go on.

Legend: B batch, L tokens, D hidden, V vocabulary, X tokens asked.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from braingpt.model.cache import KVCache, SomeRows
from braingpt.model.config import EarlyExitConfig
from braingpt.model.layers import rms_norm
from braingpt.model.sequence_layout import Layout

Head = Callable[[Tensor], Tensor]


class EarlyExit:
    """How a model's blocks are gone through: with dropped layers while learning, up to each token's exit
    otherwise.
    """

    def __init__(self, config: EarlyExitConfig, layers: int) -> None:
        self.config, self.threshold = config, config.threshold
        self.places = frozenset(
            config.places if config.places is not None else range(max(1, layers // 3), layers)
        )
        self.dropped = [config.dropout * (2 ** (layer / max(1, layers - 1)) - 1) for layer in range(layers)]
        # Of layers to be dropped and asked; the trainer seeds it for each step, so that no state need be
        # kept.
        self.draws = torch.Generator()
        # while learning: the states the head shall also predict from
        self.middle: Tensor | None = None
        # layers gone through and tokens, since `share` was last asked
        self.layers, self.used, self.seen = layers, 0, 0
        # where somebody looks on: of each call (B, L) the layers that each token went through
        self.depths: list[Tensor] | None = None

    def learn(self, blocks: Sequence[nn.Module], x_BLD: Tensor, layout: Layout) -> Tensor:
        """All tokens through the blocks, some rows past some of them; keeps the states after a layer drawn at
        random in `middle`.
        """
        exit_after = (
            int(torch.randint(1, len(blocks), (), generator=self.draws))
            if self.config.loss > 0 and len(blocks) > 1
            else 0
        )
        self.middle = None
        for layer, block in enumerate(blocks):
            x_BLD = self._some_rows(block, x_BLD, layout, self.dropped[layer])
            if layer + 1 == exit_after:
                self.middle = x_BLD
        return x_BLD

    def _some_rows(self, block: nn.Module, x_BLD: Tensor, layout: Layout, rate: float) -> Tensor:
        if rate == 0:
            return block(x_BLD, layout)
        kept_B = torch.rand(len(x_BLD), generator=self.draws) >= rate
        if kept_B.all():
            return block(x_BLD, layout)
        if not kept_B.any():
            return x_BLD
        row = kept_B.nonzero()[:, 0].to(x_BLD.device)
        return x_BLD.index_copy(0, row, block(x_BLD[row], layout.rows(row)).to(x_BLD.dtype))

    def count(self, used_B: Tensor, seen: Tensor | int) -> None:
        """Remember how deep the tokens of a call went."""
        self.used += int(used_B.sum())
        self.seen += int(seen.sum()) if isinstance(seen, Tensor) else seen * len(used_B)

    def share(self) -> float | None:
        """Mean share of the layers that the tokens since the last call of this went through."""
        share = self.used / (self.seen * self.layers) if self.seen else None
        self.used = self.seen = 0
        return share

    def until_sure(
        self, blocks: Sequence[nn.Module], x_BLD: Tensor, layout: Layout, states: Sequence | None, head: Head
    ) -> tuple[Tensor, Tensor]:
        """(B, L, D) each token's state at its exit, and (B,) how many layers the tokens of each row went
        through.
        """
        depth_BL = torch.zeros(x_BLD.shape[:2], dtype=torch.long, device=x_BLD.device)
        going_BL = (
            torch.ones(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
            if layout.valid is None
            else layout.valid.clone()
        )
        for layer, block in enumerate(blocks):
            if layer in self.places and self.threshold is not None and going_BL.any():
                going_BL[going_BL.clone()] = confidence(head(x_BLD[going_BL])) < self.threshold
            state = None if states is None else states[layer]
            if (
                going_BL.shape[1] == 1
                and state is not None
                and state.k is not None
                and 0 < int(going_BL.sum()) < len(going_BL)
            ):
                x_BLD = _rows_that_go(block, x_BLD, layout, state, going_BL[:, 0])
                depth_BL += going_BL
            elif going_BL.any():
                changed_BLD = block(x_BLD, layout, state)
                x_BLD = (
                    changed_BLD if going_BL.all() else torch.where(going_BL[..., None], changed_BLD, x_BLD)
                )
                depth_BL += going_BL
            elif state is not None:
                block.mixer.remember(rms_norm(x_BLD), layout, state)
            else:
                break
        if self.depths is not None:
            self.depths.append(depth_BL)
        return x_BLD, depth_BL.sum(1)


def _rows_that_go(block: nn.Module, x_B1D: Tensor, layout: Layout, state: KVCache, going_B: Tensor) -> Tensor:
    """One step in which some rows have left: the block runs on the others alone, these leave keys and values."""
    go, left = going_B.nonzero()[:, 0], (~going_B).nonzero()[:, 0]
    state.reserve(state.k[:, :, :1], state.v[:, :, :1], layout.valid)
    block.mixer.remember(rms_norm(x_B1D[left]), layout.rows(left), SomeRows(state, left))
    return x_B1D.index_copy(0, go, block(x_B1D[go], layout.rows(go), SomeRows(state, go)))


def confidence(logits_XV: Tensor) -> Tensor:
    """(X,) the probability of the likeliest token."""
    return torch.softmax(logits_XV.float() if logits_XV.itemsize < 4 else logits_XV, -1).amax(-1)
