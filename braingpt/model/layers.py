"""Layers that all architectures share.

Legend: B batch, H heads, L tokens, K channels a head, D hidden.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from braingpt.kernels.linear import linear
from braingpt.kernels.pointwise import rms_norm as rms_norm
from braingpt.kernels.pointwise import squared_relu
from braingpt.model.int8 import Int8Weight, shape_only
from braingpt.model.work_counters import CountedModule


def rotate(x_BHLK: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding, halves paired (Su et al. 2021)."""
    cos, sin = cos_sin
    left, right = x_BHLK.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """(B, L, D) to (B, H, L, K)."""
    return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x_BHLK: Tensor) -> Tensor:
    """(B, H, L, K) to (B, L, D)."""
    return x_BHLK.transpose(1, 2).flatten(2)


# cuDNN is not among them: see `attend`.
ANY_LENGTH = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend(
    q_BHLK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    mask_BLT: Tensor | None,
    causal: bool = False,
    varied: bool = True,
) -> Tensor:
    """Attention by scaled_dot_product_attention.

    Args:
        q_BHLK: Queries.
        k_BHTK: Keys; fewer heads of keys serve equal groups of queries.
        v_BHTK: Values, with as many heads as the keys.
        mask_BLT: True where a query may see a key (B or 1 rows); None: everywhere, or as `causal` says.
        causal: Query l sees the keys up to l.
        varied: The number of keys differs from call to call. cuDNN is then excluded, because on an H100 it
            planned for 10 ms in each direction for every new number.

    Returns:
        (B, H, L, K).
    """
    group = q_BHLK.shape[1] // k_BHTK.shape[1]
    mask = None if mask_BLT is None else mask_BLT[:, None]
    # Of the fused kernels only FlashAttention supports groups, and it takes no mask.
    if q_BHLK.is_cuda and group > 1 and mask is not None:
        k_BHTK, v_BHTK, group = k_BHTK.repeat_interleave(group, 1), v_BHTK.repeat_interleave(group, 1), 1
    with sdpa_kernel(ANY_LENGTH) if varied and q_BHLK.is_cuda else nullcontext():
        return F.scaled_dot_product_attention(
            q_BHLK, k_BHTK, v_BHTK, attn_mask=mask, is_causal=causal, enable_gqa=group > 1
        )


class Linear(nn.Linear):
    """A linear map without bias.

    With `zero_init` the weight starts at zero. Maps that write into the residual stream start so, which makes
    a fresh block the identity.
    """

    def __init__(self, inputs: int, outputs: int, zero_init: bool = False) -> None:
        self.zero_init = zero_init
        super().__init__(inputs, outputs, bias=False)
        self.int8: Int8Weight | None = None

    def reset_parameters(self) -> None:
        """Draw the weight from a uniform distribution of variance 1 / inputs."""
        if self.zero_init:
            nn.init.zeros_(self.weight)
        else:
            nn.init.uniform_(self.weight, -math.sqrt(3 / self.in_features), math.sqrt(3 / self.in_features))

    def effective_weight(self) -> Tensor:
        """The weight (outputs, inputs) that inputs are multiplied with."""
        return self.weight

    def to_int8(self) -> None:
        """Hold the weight as int8 from now on.

        The parameter keeps only its shape, so it can no longer be trained or saved.
        """
        self.int8 = Int8Weight(self.effective_weight())
        self.weight = shape_only(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.effective_weight()) if self.int8 is None else self.int8(x)


class GroupedProjection(Linear):
    """Queries, keys and values of each token from one product, with `kv_heads` keys and values for `heads`
    queries (Ainslie et al. 2023).
    """

    def __init__(self, hidden: int, heads: int, kv_heads: int) -> None:
        self.heads, self.kv_heads, self.channels = heads, kv_heads, hidden // heads
        super().__init__(hidden, (heads + 2 * kv_heads) * self.channels)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, L, K), keys and values (B, kv heads, L, K)."""
        sizes = [heads * self.channels for heads in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = super().forward(x_BLD).split(sizes, -1)
        return split_heads(q, self.heads), split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's key and value in float32."""
        return 2 * 4 * self.kv_heads * self.channels


class MLP(CountedModule):
    """Two linear maps around a squared ReLU (So et al. 2021, Primer)."""

    def __init__(self, hidden: int, neurons: int) -> None:
        super().__init__()
        self.up = Linear(hidden, neurons)
        self.down = Linear(neurons, hidden, zero_init=True)

    def forward(self, x_BLD: Tensor) -> Tensor:
        act = squared_relu(self.up(x_BLD))
        if self.record is not None:
            tokens = x_BLD.shape[:-1].numel()
            self.record.count(neurons=act.numel(), neurons_fired=int((act > 0).sum()))
            self.record.add_flops(tokens * self.flops())
        return self.down(act)

    def parameters_active(self) -> int:
        """Weights that one token is multiplied with."""
        return self.up.weight.numel() + self.down.weight.numel()

    def flops(self) -> int:
        """Forward operations a token."""
        return 2 * self.parameters_active()
