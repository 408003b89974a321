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

from braingpt.kernels.conv import carried, silu_conv
from braingpt.kernels.pointwise import gated_norm
from braingpt.kernels.scan.scan import scan, step
from braingpt.model.config import MambaConfig
from braingpt.model.layers import Linear
from braingpt.model.sequence_layout import Layout


@dataclass
class MambaState:
    """past: the last convolution inputs (B, taps - 1, E).  hidden: (B, H, N, P), float32 or wider."""

    past: Tensor
    hidden: Tensor

    def bytes(self) -> int:
        """Bytes in use, over the whole batch."""
        return sum(t.numel() * t.element_size() for t in (self.past, self.hidden))


class Mamba2(nn.Module):
    """Reads a sequence with a recurrent state; `forward` scans in chunks, one token with a state takes one
    step of the recurrence.
    """

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
        # softplus gives dt back
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.scale = nn.Parameter(torch.ones(self.inner))
        self.out = Linear(self.inner, hidden, out=True)
        self.record = None

    def new_state(self, batch: int, device, dtype) -> MambaState:
        """A state that has read nothing."""
        past = torch.zeros(
            batch, self.config.conv - 1, self.inner + 2 * self.config.state, device=device, dtype=dtype
        )
        wide = torch.promote_types(dtype, torch.float32)
        return MambaState(
            past,
            torch.zeros(batch, self.heads, self.config.state, self.config.head, device=device, dtype=wide),
        )

    def forward(self, x_BLD: Tensor, layout: Layout, state: MambaState | None = None) -> Tensor:
        batch, length, _ = x_BLD.shape
        n = self.config.state
        z_BLI, u_BLE, dt_BLH = self.into(x_BLD).split([self.inner, self.inner + 2 * n, self.heads], -1)
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        dt_BLH = F.softplus(dt_BLH.to(wide) + self.dt_bias)
        # padding is not convolved, writes nothing and does not decay the state
        if layout.valid is not None:
            u_BLE = u_BLE * layout.valid[..., None]
            dt_BLH = dt_BLH * layout.valid[..., None]
        past = None if state is None else state.past
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
            before = (
                state.hidden if state is not None else self.new_state(batch, x_BLD.device, x_BLD.dtype).hidden
            )
            y_BLHP, after = scan(
                x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, before, layout.segment, chunk=self.config.chunk
            )
            if state is not None:
                state.hidden = after
        if state is not None:
            state.past = carried(state.past, u_BLE, layout.valid)
        if self.record is not None:
            done, arrived = self._products(batch, length), layout.tokens(batch)
            self.record.count(attended=arrived)
            self.record.products(done, round(done * arrived / (batch * length)))
        skip_I = self.skip.to(x_BLI.dtype).repeat_interleave(self.config.head)
        return self.out(gated_norm(y_BLHP.flatten(2), x_BLI, skip_I, z_BLI, self.scale.to(x_BLI.dtype)))

    def _products(self, batch: int, length: int) -> int:
        """Operations of a forward pass; the last chunk may be a short one."""
        whole, rest = divmod(length, self.config.chunk)
        return round(
            batch * (whole * self.config.chunk * self.flops(self.config.chunk) + rest * self.flops(rest))
        )

    def parameters_active(self) -> int:
        """Weights one token multiplies with."""
        return sum(p.numel() for p in self.parameters())

    def flops(self, context: int) -> float:
        """Forward operations a token in a window of `context` tokens: projections, and the matrix products of
        the scan.
        """
        n, weights = self.config.state, self.into.weight.numel() + self.out.weight.numel() + self.conv.numel()
        if context == 1:
            return 2 * weights + 4 * n * self.inner
        chunk = min(self.config.chunk, context)
        return 2 * weights + 2 * chunk * (n + self.inner) + 4 * n * self.inner

    def state_bytes(self, length: int) -> int:
        """Bytes the state takes for one sequence in float32, whatever its length."""
        return 4 * (
            (self.config.conv - 1) * (self.inner + 2 * self.config.state) + self.config.state * self.inner
        )
