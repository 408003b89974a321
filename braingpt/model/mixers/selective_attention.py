"""Selective attention: about a tenth of the tokens attend, and only among each other; all others pass by.

The cache holds only the chosen tokens.

Legend: B batch, H heads, L tokens, C chosen tokens, T cached ones, K channels a head, D hidden.
"""

import torch
from torch import Tensor

from braingpt.model.cache import PackedCache
from braingpt.model.interface import Mixer
from braingpt.model.layers import GroupedProjection, Linear, attend, merge_heads, rms_norm, rotate
from braingpt.model.routing.token_selection import Selection, Selector
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import WorkCounters


class SelectiveAttention(Mixer):
    """Attention among the chosen tokens, computed for them only, in training and in generation."""

    kind = "selective"

    def __init__(
        self, hidden: int, heads: int, rope_base: float, rate: float, kv_heads: int | None = None
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.rope_base = heads, kv_heads or heads, rope_base
        self.selector = Selector(hidden, rate)
        self.qkv = GroupedProjection(hidden, heads, self.kv_heads)
        self.out = Linear(hidden, hidden, zero_init=True)

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> PackedCache:
        """An empty cache."""
        return PackedCache(batch, device)

    def forward(self, x_BLD: Tensor, layout: Layout, state: PackedCache | None = None) -> Tensor:
        score_BL, chosen_BL = self.selector(x_BLD, layout.valid)
        # A step of generation: at the usual rate nine tokens of ten are not chosen.
        if x_BLD.shape[1] == 1 and self.record is None and not torch.is_grad_enabled():
            if not chosen_BL.any():
                return torch.zeros_like(x_BLD)
            if len(x_BLD) == 1 and state is not None:
                return self.attend_one(x_BLD, score_BL, layout, state)
        packed = Selection.of(chosen_BL, min_slots=int(torch.is_grad_enabled()))
        slots = packed.index.shape[1]
        if self.record is not None:
            self._count(self.record, x_BLD, layout, packed, state)
        if slots == 0:
            return torch.zeros_like(x_BLD)
        inside = packed.pack_layout(layout)
        q, k, v = self._rotated_qkv(packed.pack(x_BLD), inside)
        # Unused slots are at the end: no chosen token reads them, and what they read is dropped.
        mask_BCT = None
        if state is not None:
            k, v, slot_BC = state.append(k, v, packed.count)
            mask_BCT = torch.arange(k.shape[2], device=q.device) <= slot_BC[..., None]
        elif inside.segment is not None:
            mask_BCT = (inside.segment[:, :, None] == inside.segment[:, None, :]).tril()
        y_BHCK = attend(q, k, v, mask_BCT, causal=mask_BCT is None)
        y_BCD = self.out(merge_heads(y_BHCK)) * packed.pack(score_BL)[..., None]
        return packed.unpack(y_BCD, x_BLD.shape[1])

    def attend_one(self, x_BLD: Tensor, score_BL: Tensor, layout: Layout, state: PackedCache) -> Tensor:
        """The step of a single row whose token is chosen: nothing to pack, no mask."""
        q, k, v = self._rotated_qkv(x_BLD, layout)
        y_BHLK = attend(q, *state.append_one(k, v), None)
        return self.out(merge_heads(y_BHLK)) * score_BL[..., None]

    def prepare_one(self, x_BLD: Tensor, layout: Layout, state: PackedCache) -> None:
        """Do beforehand what a compiled `attend_one` would be compiled again for: grow the store, compute
        angles.
        """
        state.grow_early()
        layout.rotary(self.qkv.channels, self.rope_base, x_BLD.dtype)

    def _rotated_qkv(self, x_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated to their places, and values."""
        q, k, v = self.qkv(x_BLD)
        cos_sin = layout.rotary(q.shape[-1], self.rope_base, q.dtype)
        return rotate(rms_norm(q), cos_sin), rotate(rms_norm(k), cos_sin), v

    def _count(
        self,
        record: WorkCounters,
        x_BLD: Tensor,
        layout: Layout,
        packed: Selection,
        state: PackedCache | None,
    ) -> None:
        batch, length, hidden = x_BLD.shape
        chosen, before = packed.count, 0 if state is None else state.count_B
        pairs = self.heads * int((chosen * before + chosen * (chosen + 1) // 2).sum())
        arrived, possible = layout.tokens(batch), self.heads * layout.pairs(batch)
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        # Unused slots are computed too; the attention of all slots is a masked rectangle.
        work = batch * packed.index.shape[1]
        reach = packed.index.shape[1] + (0 if state is None else state.longest)
        record.count(attended=int(chosen.sum()), keys_kept=pairs, keys_possible=possible)
        record.add_flops(
            2 * batch * length * hidden + 2 * work * weights + 4 * work * reach * hidden,
            2 * arrived * (hidden + weights) + 4 * possible * (hidden // self.heads),
        )

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with, on average at the target rate."""
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        return self.selector.weight.numel() + round(self.selector.rate * weights)

    def flops(self, context: float) -> float:
        """Forward operations a token at the target rate, averaged over a window of `context` tokens."""
        rate, hidden = self.selector.rate, self.out.in_features
        return 2 * self.parameters_active() + rate * 4 * hidden * (rate * context + 1) / 2

    def state_bytes(self, length: int) -> int:
        """Bytes of state after a sequence of `length` tokens at the target rate, in float32."""
        return round(self.qkv.kv_bytes * length * self.selector.rate)
