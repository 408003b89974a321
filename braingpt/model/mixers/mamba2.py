"""The Mamba-2 mixer (Dao & Gu 2024, section 7): short convolution, selective state-space scan, gated norm.

Constant memory per sequence.

Legend: B batch, L tokens, D hidden, I inner width, H heads, P channels a head, N state, E convolved channels
(I + 2N).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.conv import join_past, next_past, silu_conv
from braingpt.kernels.pointwise import gated_norm
from braingpt.kernels.scan.reference import step
from braingpt.kernels.scan.scan import scan
from braingpt.model.config_parts import MambaConfig
from braingpt.model.interface import Mixer
from braingpt.model.layers import Linear
from braingpt.model.sequence_layout import Layout


@dataclass
class MambaState:
    """The recurrent state."""

    # (B, taps - 1, E) the last inputs of the convolution.
    past: Tensor
    # (B, H, N, P) in float32 or wider.
    hidden: Tensor

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both tensors, contiguous, for a step that changes them in place."""
        if not (self.past.is_contiguous() and self.hidden.is_contiguous()):
            self.past, self.hidden = self.past.contiguous(), self.hidden.contiguous()
        return self.past, self.hidden

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return sum(t.numel() * t.element_size() for t in (self.past, self.hidden))


class Mamba2(Mixer):
    """Reads a sequence with a recurrent state: in chunks, or one token with a state in a single step."""

    kind = "mamba"

    def __init__(self, hidden: int, config: MambaConfig) -> None:
        super().__init__()
        self.config, self.hidden = config, hidden
        self.inner = round(hidden * config.expand)
        self.heads = self.inner // config.head
        self.into = Linear(hidden, 2 * self.inner + 2 * config.state + self.heads)
        self.conv = nn.Parameter(
            torch.empty(self.inner + 2 * config.state, config.conv).uniform_(-1, 1) / math.sqrt(config.conv)
        )
        self.decay_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        dt = torch.exp(torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)))
        # Softplus of the bias is dt.
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.scale = nn.Parameter(torch.ones(self.inner))
        self.out = Linear(self.inner, hidden, zero_init=True)

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> MambaState:
        """A state that has read nothing."""
        config, wide = self.config, torch.promote_types(dtype, torch.float32)
        convolved = self.inner + 2 * config.state
        past = torch.zeros(batch, config.conv - 1, convolved, device=device, dtype=dtype)
        hidden = torch.zeros(batch, self.heads, config.state, config.head, device=device, dtype=wide)
        return MambaState(past, hidden)

    def forward(self, x_BLD: Tensor, layout: Layout, state: MambaState | None = None) -> Tensor:
        batch, length, _ = x_BLD.shape
        n = self.config.state
        z_BLI, u_BLE, dt_BLH = self.into(x_BLD).split([self.inner, self.inner + 2 * n, self.heads], -1)
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        dt_BLH = F.softplus(dt_BLH.to(wide) + self.dt_bias)
        # Padding is not convolved, writes nothing and does not decay the state.
        if layout.valid is not None:
            u_BLE = u_BLE * layout.valid[..., None]
            dt_BLH = dt_BLH * layout.valid[..., None]
        past = None
        if state is not None:
            past, u_BLE = join_past(state.past, u_BLE, layout.valid)
            state.past = next_past(past, u_BLE, layout.valid)
        conv_BLE = silu_conv(u_BLE, self.conv.to(u_BLE.dtype), past, layout.segment)
        x_BLI, b_BLN, c_BLN = conv_BLE.split([self.inner, n, n], -1)
        x_BLHP = x_BLI.unflatten(-1, (self.heads, -1))
        a_H = -torch.exp(self.decay_log.to(wide))
        if state is not None and length == 1:
            y_BHP, state.hidden = step(
                x_BLHP[:, 0], dt_BLH[:, 0], a_H, b_BLN[:, 0], c_BLN[:, 0], state.hidden
            )
            y_BLHP = y_BHP[:, None]
        else:
            before = (state or self.new_state(batch, x_BLD.device, x_BLD.dtype)).hidden
            y_BLHP, after = scan(
                x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, before, layout.segment, chunk=self.config.chunk
            )
            if state is not None:
                state.hidden = after
        if self.record is not None:
            done, arrived = self._products(batch, length), layout.tokens(batch)
            self.record.count(attended=arrived)
            self.record.add_flops(done, round(done * arrived / (batch * length)))
        skip_I = self.skip.to(x_BLI.dtype).repeat_interleave(self.config.head)
        return self.out(gated_norm(y_BLHP.flatten(2), x_BLI, skip_I, z_BLI, self.scale.to(x_BLI.dtype)))

    def _products(self, batch: int, length: int) -> int:
        """Operations of a forward pass; the last chunk may be a short one."""
        chunk = self.config.chunk
        chunks, last = divmod(length, chunk)
        return round(batch * (chunks * chunk * self.flops(chunk) + last * self.flops(last)))

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return sum(p.numel() for p in self.parameters())

    def flops(self, context: float) -> float:
        """Forward operations a token in a window of `context` tokens: projections and the scan's products."""
        n, weights = self.config.state, self.into.weight.numel() + self.out.weight.numel() + self.conv.numel()
        if context == 1:
            return 2 * weights + 4 * n * self.inner
        chunk = min(self.config.chunk, context)
        return 2 * weights + 2 * chunk * (n + self.inner) + 4 * n * self.inner

    def state_bytes(self, length: int) -> int:
        """Bytes of state for one sequence of any length, in float32."""
        config = self.config
        return 4 * ((config.conv - 1) * (self.inner + 2 * config.state) + config.state * self.inner)
