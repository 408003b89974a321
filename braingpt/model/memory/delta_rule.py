"""The fast tier of episodic memory: a mixer whose state is an associative memory, written by the gated delta
rule (Yang et al. 2024, section 3.4).

Each head keeps a matrix that maps keys to values. A token reads the matrix with its query, and binds its
value to its key in one step. Only the difference to what the key recalled before is written, so a new binding
replaces the old one instead of adding to it. Constant memory per sequence.

Legend: B batch, L tokens, D hidden, H heads, K channels of a key, V channels of a value, E = H (2K + V)
convolved channels, I = H V inner width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels import delta_rule
from braingpt.kernels.conv import join_past, next_past, silu_conv
from braingpt.model.config_parts import MemoryConfig
from braingpt.model.interface import Mixer
from braingpt.model.layers import Linear, rms_norm
from braingpt.model.sequence_layout import Layout

# Tokens that fresh heads remember, from the shortest to the longest; Mamba's heads start at 1 to 1,000.
SHORTEST, LONGEST = 100.0, 10_000.0


@dataclass
class MemoryState:
    """The recurrent state."""

    # (B, taps - 1, E) the last inputs of the convolution.
    past: Tensor
    # (B, H, K, V) the matrix of each head, in float32 or wider.
    bound: Tensor

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both tensors, contiguous, for a step that changes them in place."""
        if not (self.past.is_contiguous() and self.bound.is_contiguous()):
            self.past, self.bound = self.past.contiguous(), self.bound.contiguous()
        return self.past, self.bound

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return sum(t.numel() * t.element_size() for t in (self.past, self.bound))


class DeltaMemory(Mixer):
    """Short convolution, normalised keys and queries, the gated delta rule, a gated norm."""

    kind = "memory"

    def __init__(self, hidden: int, config: MemoryConfig) -> None:
        super().__init__()
        self.config, heads = config, config.heads
        self.convolved, self.inner = heads * (2 * config.key + config.value), heads * config.value
        self.into = Linear(hidden, self.convolved + self.inner + 2 * heads)
        self.conv = nn.Parameter(torch.empty(self.convolved, config.conv).uniform_(0, 2) / config.conv)
        # Queries start equal to keys: equal inputs find each other, at any tap of the convolution.
        with torch.no_grad():
            for rows in (self.into.weight, self.conv):
                rows[heads * config.key : 2 * heads * config.key] = rows[: heads * config.key]
        self.decay_log = nn.Parameter(torch.zeros(heads))
        rate = torch.exp(torch.empty(heads).uniform_(math.log(1 / LONGEST), math.log(1 / SHORTEST)))
        # Softplus of the bias is the rate.
        self.decay_bias = nn.Parameter(rate + torch.log(-torch.expm1(-rate)))
        self.scale = nn.Parameter(torch.ones(self.inner))
        self.out = Linear(self.inner, hidden, zero_init=True)

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> MemoryState:
        """A memory that holds nothing."""
        config, wide = self.config, torch.promote_types(dtype, torch.float32)
        past = torch.zeros(batch, config.conv - 1, self.convolved, device=device, dtype=dtype)
        bound = torch.zeros(batch, config.heads, config.key, config.value, device=device, dtype=wide)
        return MemoryState(past, bound)

    def forward(self, x_BLD: Tensor, layout: Layout, state: MemoryState | None = None) -> Tensor:
        batch, length, _ = x_BLD.shape
        config, heads = self.config, self.config.heads
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        u_BLE, z_BLI, beta_BLH, rate_BLH = self.into(x_BLD).split(
            [self.convolved, self.inner, heads, heads], -1
        )
        beta_BLH = torch.sigmoid(beta_BLH.to(wide))
        decay_BLH = -torch.exp(self.decay_log.to(wide)) * F.softplus(rate_BLH.to(wide) + self.decay_bias)
        # Padding is not convolved, writes nothing and does not decay the state.
        if layout.valid is not None:
            u_BLE, beta_BLH, decay_BLH = (t * layout.valid[..., None] for t in (u_BLE, beta_BLH, decay_BLH))
        past = None
        if state is not None:
            past, u_BLE = join_past(state.past, u_BLE, layout.valid)
            state.past = next_past(past, u_BLE, layout.valid)
        conv_BLE = silu_conv(u_BLE, self.conv.to(u_BLE.dtype), past, layout.segment)
        q, k, v = conv_BLE.split([heads * config.key, heads * config.key, self.inner], -1)
        q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
        # Queries and keys of length 1.
        q, k = rms_norm(q) * config.key**-0.5, rms_norm(k) * config.key**-0.5
        before = (state or self.new_state(batch, x_BLD.device, x_BLD.dtype)).bound
        if length == 1:
            y_BHV, after = delta_rule.step(q[:, 0], k[:, 0], v[:, 0], beta_BLH[:, 0], decay_BLH[:, 0], before)
            y_BLHV = y_BHV[:, None]
        else:
            y_BLHV, after = delta_rule.gated_delta_rule(
                q, k, v, beta_BLH, decay_BLH, before, layout.segment, chunk=config.chunk
            )
        if state is not None:
            state.bound = after
        if self.record is not None:
            done, arrived = self._products(batch, length), layout.tokens(batch)
            self.record.count(
                attended=arrived, memory_reads=arrived * heads, memory_writes=int((beta_BLH > 0.5).sum())
            )
            self.record.add_flops(done, round(done * arrived / (batch * length)))
        y_BLI = rms_norm(y_BLHV).flatten(2) * self.scale.to(x_BLD.dtype) * F.silu(z_BLI)
        return self.out(y_BLI.to(x_BLD.dtype))

    def _products(self, batch: int, length: int) -> float:
        """Operations of a forward pass; the delta rule computes whole chunks."""
        scanned = -(-length // min(self.config.chunk, length)) * min(self.config.chunk, length)
        return batch * (length * 2 * self._weights() + scanned * self._rule_flops(length))

    def _weights(self) -> int:
        return self.into.weight.numel() + self.out.weight.numel() + self.conv.numel()

    def _rule_flops(self, context: float) -> float:
        config = self.config
        return config.heads * delta_rule.flops(config.key, config.value, min(config.chunk, context))

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return sum(p.numel() for p in self.parameters())

    def flops(self, context: float) -> float:
        """Forward operations a token in a window of `context` tokens: projections and the delta rule."""
        return 2 * self._weights() + self._rule_flops(context)

    def state_bytes(self, length: int) -> int:
        """Bytes of state for one sequence of any length, in float32."""
        return 4 * ((self.config.conv - 1) * self.convolved + self.config.key * self.inner)
