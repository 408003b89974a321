"""Dendritic attention: each dendrite attends with heads of its own, a gate that depends on the token lets the
result pass, the soma sums.

Without gradients, dendrites that no token of the call opens are not computed: in generation, the token's
closed dendrites. Only their keys and values are computed, for later tokens.

Legend: B batch, H heads, L tokens, T keys, K channels a head, R dendrites, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.sparse_attention.quotas import quotas, reach
from braingpt.kernels.sparse_attention.sparse_attention import magnitude_attention
from braingpt.model.cache import KVCache
from braingpt.model.config import SparseAttentionConfig
from braingpt.model.interface import Mixer
from braingpt.model.layers import Linear, merge_heads, rms_norm, rotate, split_heads
from braingpt.model.sequence_layout import Layout, documents
from braingpt.model.work_counters import WorkCounters


class DendriticAttention(Mixer):
    """Heads in groups, one group a dendrite; each query keeps its scores of largest magnitude."""

    kind = "dendritic"

    def __init__(self, hidden: int, heads: int, rope_base: float, config: SparseAttentionConfig) -> None:
        super().__init__()
        self.heads, self.rope_base, self.config = heads, rope_base, config
        self.qkv = Linear(hidden, 3 * hidden)
        self.gate = nn.Linear(hidden, config.dendrites)
        nn.init.zeros_(self.gate.bias)
        # Every dendrite's own map to the soma, side by side: one product sums them.
        self.out = Linear(hidden, hidden, zero_init=True)

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> KVCache:
        """An empty cache."""
        return KVCache()

    def forward(self, x_BLD: Tensor, layout: Layout, state: KVCache | None = None) -> Tensor:
        gate_BLR = torch.sigmoid(self.gate(x_BLD))
        open_BLR = gate_BLR > self.config.gate_threshold
        # A closed dendrite passes nothing, but its gate still gets the gradient and can open again
        # (straight-through estimator).
        passed_BLR = gate_BLR - (gate_BLR * ~open_BLR).detach()
        spans = self._spans_to_compute(open_BLR)
        channels = x_BLD.shape[-1] // self.heads
        # Not `split_heads`: where all dendrites are closed no head is left.
        q, k, v = (
            part.unflatten(-1, (part.shape[-1] // channels, channels)).transpose(1, 2)
            for part in self._project(x_BLD, spans)
        )
        cos_sin = layout.rotary(k.shape[-1], self.rope_base, k.dtype)
        q, k = rotate(rms_norm(q), cos_sin), rotate(rms_norm(k), cos_sin)
        if state is None:
            document_BT = layout.documents()
        else:
            k, v = state.append(k, v, layout.valid)
            document_BT = documents(None, state.valid)
        soma_BLD, kept, first = torch.zeros_like(x_BLD), 0, 0
        for span in spans:
            heads, inputs = self._of(span, self.heads), self._of(span, x_BLD.shape[-1])
            q_part = q[:, first : first + heads.stop - heads.start]
            y_BHLK, kept_BHL = magnitude_attention(
                q_part, k[:, heads], v[:, heads], document_BT, self.config.keep, self.config.floor
            )
            y_BLRK = (
                merge_heads(y_BHLK).unflatten(-1, (span.stop - span.start, -1)) * passed_BLR[..., span, None]
            )
            first += heads.stop - heads.start
            if span.stop - span.start == self.config.dendrites:
                soma_BLD = self.out(y_BLRK.flatten(2))
            else:
                soma_BLD += F.linear(y_BLRK.flatten(2), self.out.weight[:, inputs])
            if self.record is not None:
                kept += int(kept_BHL.sum())
        if self.record is not None:
            self._count(self.record, x_BLD, kept, document_BT, k.shape[2], open_BLR, spans)
        return soma_BLD

    def remember(self, x_BLD: Tensor, layout: Layout, state: KVCache) -> None:
        """Store keys and values of tokens that left before this layer, for later tokens to read."""
        if self.qkv.int8 is None:
            _, k_BLD, v_BLD = self._project(x_BLD, [])
        else:
            _, k_BLD, v_BLD = self.qkv(x_BLD).chunk(3, -1)
        k, v = split_heads(k_BLD, self.heads), split_heads(v_BLD, self.heads)
        cos_sin = layout.rotary(k.shape[-1], self.rope_base, k.dtype)
        state.append(rotate(rms_norm(k), cos_sin), v, layout.valid)

    def _spans_to_compute(self, open_BLR: Tensor) -> list[slice]:
        """Dendrites to compute, neighbours together: those that any of these tokens opens.

        All are computed with gradients, on a GPU, which would have to wait for the choice, and in int8, whose
        packed weights are not cut.
        """
        count = self.config.dendrites
        if torch.is_grad_enabled() or open_BLR.is_cuda or self.qkv.int8 is not None:
            return [slice(0, count)]
        needed = [r for r, opens in enumerate(open_BLR.flatten(0, 1).any(0).tolist()) if opens]
        begins = [r for r in needed if r - 1 not in needed]
        ends = [r + 1 for r in needed if r + 1 not in needed]
        return [slice(*span) for span in zip(begins, ends, strict=True)]

    def _of(self, span: slice, total: int) -> slice:
        """The heads or channels, out of `total`, of a span of dendrites."""
        each = total // self.config.dendrites
        return slice(span.start * each, span.stop * each)

    def _project(self, x_BLD: Tensor, spans: list[slice]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the dendrites in `spans`; keys and values of all, which later tokens may read."""
        hidden, weight = x_BLD.shape[-1], self.qkv.weight
        if spans == [slice(0, self.config.dendrites)]:
            return self.qkv(x_BLD).chunk(3, -1)
        queries = [F.linear(x_BLD, weight[self._of(span, hidden)]) for span in spans]
        q_BLD = torch.cat(queries, -1) if queries else x_BLD[..., :0]
        k_BLD, v_BLD = F.linear(x_BLD, weight[hidden:]).chunk(2, -1)
        return q_BLD, k_BLD, v_BLD

    def _count(
        self,
        record: WorkCounters,
        x_BLD: Tensor,
        kept: int,
        document_BT: Tensor | None,
        keys: int,
        open_BLR: Tensor,
        spans: list[slice],
    ) -> None:
        batch, length, hidden = x_BLD.shape
        tokens, channels = batch * length, hidden // self.heads
        possible = self.heads * int(reach(document_BT, length, keys, x_BLD.device).expand(batch, -1).sum())
        record.count(
            attended=tokens,
            keys_kept=kept,
            keys_possible=possible,
            dendrites_open=int(open_BLR.sum()),
            dendrites=open_BLR.numel(),
        )
        # Every key is scored, since the largest are not known before; only the kept ones are read. Keys and
        # values of skipped dendrites are computed too.
        needed = sum(span.stop - span.start for span in spans) / self.config.dendrites
        whole = 2 * tokens * self.parameters_active()
        maps = whole - round((1 - needed) * 4 * tokens * hidden**2)
        record.add_flops(
            maps + round(2 * channels * possible * needed) + 2 * channels * kept,
            whole + 4 * channels * possible,
        )

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.qkv.weight.numel() + self.gate.weight.numel() + self.out.weight.numel()

    def flops(self, context: float) -> float:
        """Forward operations a token, averaged over a window of `context` tokens.

        All keys up to the token's own are scored, the kept ones are read.
        """
        reach_1L = reach(None, int(context), int(context), torch.device("cpu"))
        kept = quotas(reach_1L, self.config.keep, self.config.floor).double().mean().item()
        return 2 * self.parameters_active() + 2 * self.out.in_features * ((context + 1) / 2 + kept)

    def state_bytes(self, length: int) -> int:
        """Bytes of state after a sequence of `length` tokens, in float32."""
        return 2 * 4 * self.out.in_features * length
