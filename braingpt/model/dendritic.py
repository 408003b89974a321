"""Dendritic attention: each dendrite attends with heads of its own, a gate that depends on the token lets it pass, the soma sums.

Legend: B batch, H heads, L tokens, T keys, K channels a head, R dendrites, D hidden.
"""

import torch
from torch import Tensor, nn

from braingpt.kernels.magnitude_attention import magnitude_attention, quotas, reach
from braingpt.model.cache import KVCache
from braingpt.model.config import SparseAttentionConfig
from braingpt.model.layout import Layout, documents
from braingpt.model.parts import Linear, merge_heads, rms_norm, rotate, split_heads


class DendriticAttention(nn.Module):
    """Heads in groups, one group a dendrite; each query keeps its largest-magnitude scores; gates below a threshold close."""

    kind = "dendritic"

    def __init__(self, hidden: int, heads: int, rope_base: float, config: SparseAttentionConfig) -> None:
        super().__init__()
        self.heads, self.rope_base, self.config = heads, rope_base, config
        self.qkv = Linear(hidden, 3 * hidden)
        self.gate = nn.Linear(hidden, config.dendrites)
        nn.init.zeros_(self.gate.bias)
        self.out = Linear(hidden, hidden, out=True)  # every dendrite's own map to the soma, side by side: one product sums them
        self.record = None

    def new_state(self, batch: int, device, dtype) -> KVCache:
        """An empty cache."""
        return KVCache()

    def forward(self, x_BLD: Tensor, layout: Layout, state: KVCache | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x_BLD).chunk(3, -1))
        cos_sin = layout.rotary(q.shape[-1], self.rope_base, q.dtype)
        q, k = rotate(rms_norm(q), cos_sin), rotate(rms_norm(k), cos_sin)
        if state is None:
            document_BT = layout.documents()
        else:
            k, v = state.append(k, v, layout.valid)
            document_BT = documents(None, state.valid)
        y_BHLK, kept_BHL = magnitude_attention(q, k, v, document_BT, self.config.keep, self.config.floor)
        gate_BLR = torch.sigmoid(self.gate(x_BLD))
        open_BLR = gate_BLR > self.config.gate_threshold
        # A closed dendrite passes nothing, but its gate still feels the gradient and can open again (straight through).
        passed_BLR = gate_BLR - (gate_BLR * ~open_BLR).detach()
        y_BLRK = merge_heads(y_BHLK).unflatten(-1, (self.config.dendrites, -1)) * passed_BLR[..., None]
        if self.record is not None:
            self._count(x_BLD, kept_BHL, document_BT, k.shape[2], open_BLR)
        return self.out(y_BLRK.flatten(2))

    def _count(self, x_BLD: Tensor, kept_BHL: Tensor, document_BT: Tensor | None, keys: int, open_BLR: Tensor) -> None:
        batch, length, hidden = x_BLD.shape
        tokens, kept = batch * length, int(kept_BHL.sum())
        possible = self.heads * int(reach(document_BT, length, keys, x_BLD.device).expand(batch, -1).sum())
        self.record.count(
            attended=tokens,
            keys_kept=kept,
            keys_possible=possible,
            dendrites_open=int(open_BLR.sum()),
            dendrites=open_BLR.numel(),
        )
        # Every key is scored, since the largest are not known before; only those kept are read.
        maps, channels = 2 * tokens * self.parameters_active(), hidden // self.heads
        self.record.products(maps + 2 * channels * (possible + kept), maps + 4 * channels * possible)

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        return self.qkv.weight.numel() + self.gate.weight.numel() + self.out.weight.numel()

    def flops(self, context: int) -> float:
        """Forward operations a token, averaged over a window of `context` tokens: all keys up to its own are scored, those kept are read."""
        reach_1L = reach(None, int(context), int(context), torch.device("cpu"))
        kept = quotas(reach_1L, self.config.keep, self.config.floor).double().mean().item()
        return 2 * self.parameters_active() + 2 * self.out.in_features * ((context + 1) / 2 + kept)

    def state_bytes(self, length: int) -> int:
        """Bytes a sequence of `length` tokens leaves behind, in float32."""
        return 2 * 4 * self.out.in_features * length
