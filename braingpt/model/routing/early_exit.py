"""Early exit: a token leaves when the head, applied in the middle of the network, is sure of the next one.

Training follows LayerSkip (Elhoushi et al. 2024, arXiv 2404.16710, section 4.1): layers are dropped for whole
rows, deeper layers more often, and the shared head also predicts from a layer in between, drawn for each
step. At an exit, a token whose likeliest continuation reaches the threshold keeps its state; deeper layers
make their keys and values from that state (CALM, Schuster et al. 2022, section 3.4), so that later tokens can
read it. Whole sequences and single steps therefore agree: a token that has left is no longer changed.
A step computes only the rows that continue.

Legend: B batch, L tokens, D hidden, V vocabulary, X tokens that the head predicts from.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.model.cache import KVCache, KVCacheRows
from braingpt.model.config import EarlyExitConfig
from braingpt.model.layers import rms_norm
from braingpt.model.sequence_layout import Layout
from braingpt.utils.arguments import check_number

if TYPE_CHECKING:
    from braingpt.model.blocks import Block

Head = Callable[[Tensor], Tensor]


class EarlyExit:
    """How tokens pass the blocks: with dropped layers in training, up to each token's exit otherwise."""

    def __init__(self, config: EarlyExitConfig, layers: int) -> None:
        self.config, self.threshold = config, config.threshold
        self.places = frozenset(
            config.places if config.places is not None else range(max(1, layers // 3), layers)
        )
        self.dropped = [config.dropout * (2 ** (layer / max(1, layers - 1)) - 1) for layer in range(layers)]
        # Draws the layers to drop and to predict from. The trainer seeds it for each step, so that no state
        # has to be saved.
        self.draws = torch.Generator()
        # In training: the states (B, L, D) that the head also predicts from.
        self.middle: Tensor | None = None
        # Layers passed and tokens, since `share` was last called.
        self.layers, self.used, self.seen = layers, 0, 0
        # While it is a list: of each call, (B, L) the layers that each token passed.
        self.depths: list[Tensor] | None = None

    def set_threshold(self, threshold: float | None) -> None:
        """Let tokens leave from now on where they reach `threshold`; None: no token leaves.

        Raises UserError where the threshold is not a probability.
        """
        if threshold is not None:
            check_number("the exit threshold", threshold)
            if not 0 < threshold <= 1:
                raise UserError(
                    f"the exit threshold must be a probability above 0 and at most 1, not {threshold:g}"
                )
        self.threshold = threshold

    def forward_training(self, blocks: Sequence["Block"], x_BLD: Tensor, layout: Layout) -> Tensor:
        """All tokens through the blocks, some rows past some of the blocks.

        The states after a layer drawn at random are kept in `middle`.
        """
        exit_after = 0
        if self.config.loss > 0 and len(blocks) > 1:
            exit_after = int(torch.randint(1, len(blocks), (), generator=self.draws))
        self.middle = None
        for layer, block in enumerate(blocks):
            x_BLD = self._some_rows(block, x_BLD, layout, self.dropped[layer])
            if layer + 1 == exit_after:
                self.middle = x_BLD
        return x_BLD

    def _some_rows(self, block: "Block", x_BLD: Tensor, layout: Layout, rate: float) -> Tensor:
        """The block on the rows that are not dropped, each dropped at `rate`."""
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
        """Add the layers that the tokens of a call passed (B,), and its tokens of each row."""
        self.used += int(used_B.sum())
        self.seen += int(seen.sum()) if isinstance(seen, Tensor) else seen * len(used_B)

    def share(self) -> float | None:
        """Mean share of the layers that tokens passed since the last call of this; None without tokens."""
        share = self.used / (self.seen * self.layers) if self.seen else None
        self.used = self.seen = 0
        return share

    def forward_to_exits(
        self,
        blocks: Sequence["Block"],
        x_BLD: Tensor,
        layout: Layout,
        states: Sequence[Any] | None,
        head: Head,
    ) -> tuple[Tensor, Tensor]:
        """All tokens through the blocks, each up to its exit.

        Args:
            blocks: The model's blocks.
            x_BLD: Embedded tokens.
            layout: Their layout.
            states: The state of each layer, advanced; None: whole sequences without a state.
            head: From states (X, D) to logits (X, V).

        Returns:
            Each token's state at its exit (B, L, D), and the layers that the tokens of each row passed (B,).
        """
        depth_BL = torch.zeros(x_BLD.shape[:2], dtype=torch.long, device=x_BLD.device)
        if layout.valid is None:
            active_BL = torch.ones(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
        else:
            active_BL = layout.valid.clone()
        for layer, block in enumerate(blocks):
            if layer in self.places and self.threshold is not None and active_BL.any():
                active_BL[active_BL.clone()] = confidence(head(x_BLD[active_BL])) < self.threshold
            # None, or a KVCache: no other state can be read by tokens that left.
            state: Any = states[layer] if states is not None else None
            step = active_BL.shape[1] == 1 and isinstance(state, KVCache) and state.k is not None
            if step and 0 < int(active_BL.sum()) < len(active_BL):
                x_BLD = _step_active_rows(block, x_BLD, layout, state, active_BL[:, 0])
                depth_BL += active_BL
            elif active_BL.any():
                changed_BLD = block(x_BLD, layout, state)
                everywhere = bool(active_BL.all())
                x_BLD = changed_BLD if everywhere else torch.where(active_BL[..., None], changed_BLD, x_BLD)
                depth_BL += active_BL
            elif state is not None:
                block.mixer.remember(rms_norm(x_BLD), layout, state)
            else:
                break
        if self.depths is not None:
            self.depths.append(depth_BL)
        return x_BLD, depth_BL.sum(1)


def _step_active_rows(
    block: "Block", x_B1D: Tensor, layout: Layout, state: KVCache, active_B: Tensor
) -> Tensor:
    """One step in which some rows have left: the block runs on the others, these leave keys and values."""
    active, left = active_B.nonzero()[:, 0], (~active_B).nonzero()[:, 0]
    stores = state.reserve_one(layout.valid)
    block.mixer.remember(rms_norm(x_B1D[left]), layout.rows(left), KVCacheRows(state, stores, left))
    stepped = block(x_B1D[active], layout.rows(active), KVCacheRows(state, stores, active))
    return x_B1D.index_copy(0, active, stepped)


def confidence(logits_XV: Tensor) -> Tensor:
    """(X,) the probability of the likeliest token."""
    return torch.softmax(logits_XV.float() if logits_XV.itemsize < 4 else logits_XV, -1).amax(-1)
