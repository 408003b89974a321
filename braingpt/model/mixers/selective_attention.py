"""Selective attention: about a tenth of the tokens query, and they alone are the keys; the rest pass by.

The cache holds only them.

Legend: B batch, H heads, L tokens, C chosen tokens, T cached ones, K channels a head, D hidden.
"""

import torch
from torch import Tensor, nn

from braingpt.model.cache import PackedCache
from braingpt.model.layers import GroupedProjection, Linear, attend, merge_heads, rms_norm, rotate
from braingpt.model.routing.token_selection import Selection, Selector
from braingpt.model.sequence_layout import Layout


class SelectiveAttention(nn.Module):
    """Attention among the chosen tokens, computed on them alone, in training and in generation alike."""

    kind = "selective"

    def __init__(
        self, hidden: int, heads: int, rope_base: float, rate: float, kv_heads: int | None = None
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.rope_base = heads, kv_heads or heads, rope_base
        self.selector = Selector(hidden, rate)
        self.qkv = GroupedProjection(hidden, heads, self.kv_heads)
        self.out = Linear(hidden, hidden, out=True)
        self.record = None

    def new_state(self, batch: int, device, dtype) -> PackedCache:
        """An empty cache."""
        return PackedCache(batch, device)

    def forward(self, x_BLD: Tensor, layout: Layout, state: PackedCache | None = None) -> Tensor:
        score_BL, chosen_BL = self.selector(x_BLD, layout.valid)
        # a step of generation
        if x_BLD.shape[1] == 1 and self.record is None and not torch.is_grad_enabled():
            if not chosen_BL.any():
                # nine out of ten
                return torch.zeros_like(x_BLD)
            if len(x_BLD) == 1 and state is not None:
                return self.chosen(x_BLD, score_BL, layout, state)
        packed = Selection.of(chosen_BL, least=int(torch.is_grad_enabled()))
        slots = packed.index.shape[1]
        if self.record is not None:
            self._count(x_BLD, layout, packed, state)
        if slots == 0:
            return torch.zeros_like(x_BLD)
        inside = packed.pack_layout(layout)
        q, k, v = self._placed(packed.pack(x_BLD), inside)
        # unused slots stand at the end: no chosen token reads them, and what they read is dropped
        mask_BCT = None
        if state is not None:
            k, v, slot_BC = state.append(k, v, packed.count)
            mask_BCT = torch.arange(k.shape[2], device=q.device) <= slot_BC[..., None]
        elif inside.segment is not None:
            mask_BCT = (inside.segment[:, :, None] == inside.segment[:, None, :]).tril()
        y_BHCK = attend(q, k, v, mask_BCT, causal=mask_BCT is None)
        y_BCD = self.out(merge_heads(y_BHCK)) * packed.pack(score_BL)[..., None]
        return packed.unpack(y_BCD, x_BLD.shape[1])

    def chosen(self, x_BLD: Tensor, score_BL: Tensor, layout: Layout, state: PackedCache) -> Tensor:
        """The step of a single row whose token is chosen: nothing to pack, no mask."""
        q, k, v = self._placed(x_BLD, layout)
        y_BHLK = attend(q, *state.append_one(k, v), None)
        return self.out(merge_heads(y_BHLK)) * score_BL[..., None]

    def make_ready(self, x_BLD: Tensor, layout: Layout, state: PackedCache) -> None:
        """Do what `chosen`, compiled, would need forms of its own for: a store that grows, angles not known
        yet.
        """
        state.make_room()
        layout.rotary(self.qkv.channels, self.rope_base, x_BLD.dtype)

    def _placed(self, x_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, the first two normalised and rotated to their places."""
        q, k, v = self.qkv(x_BLD)
        cos_sin = layout.rotary(q.shape[-1], self.rope_base, q.dtype)
        return rotate(rms_norm(q), cos_sin), rotate(rms_norm(k), cos_sin), v

    def _count(self, x_BLD: Tensor, layout: Layout, packed: Selection, state: PackedCache | None) -> None:
        batch, length, hidden = x_BLD.shape
        chosen, before = packed.count, 0 if state is None else state.count_B
        pairs = self.heads * int((chosen * before + chosen * (chosen + 1) // 2).sum())
        arrived, possible = layout.tokens(batch), self.heads * layout.pairs(batch)
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        # slots computed, unused ones included; their attention is a masked rectangle
        work = batch * packed.index.shape[1]
        reach = packed.index.shape[1] + (0 if state is None else state.longest)
        self.record.count(attended=int(chosen.sum()), keys_kept=pairs, keys_possible=possible)
        self.record.products(
            2 * batch * length * hidden + 2 * work * weights + 4 * work * reach * hidden,
            2 * arrived * (hidden + weights) + 4 * possible * (hidden // self.heads),
        )

    def parameters_active(self) -> int:
        """Weights one token multiplies with, on average at the target rate."""
        weights = self.qkv.weight.numel() + self.out.weight.numel()
        return self.selector.weight.numel() + round(self.selector.rate * weights)

    def flops(self, context: int) -> float:
        """Forward operations a token at the target rate, averaged over a window of `context` tokens."""
        rate, hidden = self.selector.rate, self.out.in_features
        return 2 * self.parameters_active() + rate * 4 * hidden * (rate * context + 1) / 2

    def state_bytes(self, length: int) -> int:
        """Bytes a sequence of `length` tokens leaves behind at the target rate, in float32."""
        return round(self.qkv.kv_bytes * length * self.selector.rate)
