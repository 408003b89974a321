"""Dense causal attention: the mixer of the baseline.

Legend: B batch, H heads, L tokens, T keys, K channels a head, D hidden.
"""

import torch
from torch import Tensor

from braingpt.model.cache import KVCache
from braingpt.model.interface import Mixer
from braingpt.model.layers import GroupedProjection, Linear, attend, merge_heads, rms_norm, rotate
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import WorkCounters


class Attention(Mixer):
    """Causal attention with rotary positions and normalised queries and keys."""

    kind = "attention"

    def __init__(self, hidden: int, heads: int, rope_base: float, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.rope_base = heads, kv_heads or heads, rope_base
        self.qkv = GroupedProjection(hidden, heads, self.kv_heads)
        self.out = Linear(hidden, hidden, zero_init=True)

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> KVCache:
        """An empty cache."""
        return KVCache()

    def forward(self, x_BLD: Tensor, layout: Layout, state: KVCache | None = None) -> Tensor:
        q, k, v = self.qkv(x_BLD)
        cos_sin = layout.rotary(q.shape[-1], self.rope_base, q.dtype)
        q, k = rotate(rms_norm(q), cos_sin), rotate(rms_norm(k), cos_sin)
        length, mask = x_BLD.shape[1], None
        if state is not None:
            fresh = state.length == 0
            k, v = state.append(k, v, layout.valid)
            causal = fresh and state.valid is None
            if not causal and (length > 1 or state.valid is not None):
                mask = state.attention_mask(length, x_BLD.device)
        else:
            causal = layout.segment is None and layout.valid is None
            mask = None if causal else layout.attention_mask()
        y_BHLK = attend(q, k, v, mask, causal and length > 1, varied=state is not None)
        if self.record is not None:
            self._count(self.record, x_BLD, k.shape[2])
        return self.out(merge_heads(y_BHLK))

    def _count(self, record: WorkCounters, x_BLD: Tensor, keys: int) -> None:
        batch, length, hidden = x_BLD.shape
        pairs = self.heads * sum(batch * (keys - length + i + 1) for i in range(length))
        record.count(attended=batch * length, keys_kept=pairs, keys_possible=pairs)
        record.add_flops(2 * batch * length * self.parameters_active() + 4 * pairs * (hidden // self.heads))

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.qkv.weight.numel() + self.out.weight.numel()

    def flops(self, context: float) -> float:
        """Forward operations a token, averaged over a window of `context` tokens."""
        return 2 * self.parameters_active() + 4 * self.out.in_features * (context + 1) / 2

    def state_bytes(self, length: int) -> int:
        """Bytes of state after a sequence of `length` tokens, in float32."""
        return self.qkv.kv_bytes * length
