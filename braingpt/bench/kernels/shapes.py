"""An operation in the benchmark of kernels: its call, reference and dense counterpart, its floating-point
operations and the bytes it cannot avoid; and the shapes that all operations come from.

Bytes are compulsory traffic: every input read once forward and once backward, every output and gradient
written once. So no operation is faster than its limit, and most of what torch does between two operations is
not in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.bench.clock import Work
from braingpt.device.device import autocast
from braingpt.model.config import V1Config, V2Config

# The products of a forward pass, and twice as many backward.
TRAINING_PASSES = 3


@dataclass(frozen=True)
class Operation:
    """A call to time, and the calls that it is compared with."""

    # The backend that runs.
    path: str
    work: Work
    # Floating-point operations and compulsory bytes of a call.
    flops: float
    bytes: float
    # None: the operation is its own reference.
    reference: Work | None = None
    # None: there is no dense counterpart.
    dense: Work | None = None
    dense_is: str = ""
    # Products in float32, whatever the type of training is.
    float32: bool = False


@dataclass(frozen=True)
class Shapes:
    """Where shapes come from: the models' settings, the batch, the device and the type of products."""

    v1: V1Config
    v2: V2Config
    batch: int
    context: int
    device: torch.device
    dtype: torch.dtype

    @property
    def tokens(self) -> int:
        """B x L."""
        return self.batch * self.context

    def random(
        self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None, learn: bool = True
    ) -> Tensor:
        """Normal numbers; with `learn`, a leaf that takes a gradient."""
        return (scale * torch.randn(*shape, device=self.device, dtype=dtype or self.dtype)).requires_grad_(
            learn
        )

    def training(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Work:
        """A call forward and backward: the gradients of all leaves among the inputs."""
        leaves, upstream = [t for t in inputs if t.requires_grad], []

        def call() -> None:
            with autocast(self.device, None if self.dtype == torch.float32 else self.dtype):
                y = function(*inputs)
            if not upstream:
                upstream.append(torch.randn_like(y))
            torch.autograd.grad(y, leaves, upstream[0])

        return call

    def attention(self, heads: int, channels: int) -> Work:
        """A call of torch's causal attention over the same tokens, forward and backward."""
        q, k, v = (self.random(self.batch, heads, self.context, channels) for _ in range(3))
        return self.training(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), (q, k, v)
        )


def forward_only(function: Callable[..., object], inputs: Sequence[object]) -> Work:
    """A call forward, which keeps nothing for a backward pass."""

    @torch.no_grad()
    def call() -> None:
        function(*inputs)

    return call


def bytes_of(*tensors: Tensor) -> int:
    """Bytes of the tensors' elements."""
    return sum(t.numel() * t.element_size() for t in tensors)


def bytes_moved(inputs: Sequence[Tensor], output: int) -> int:
    """Compulsory bytes forward and backward.

    Inputs are read twice, the output (of so many bytes) is written and its gradient read, and the gradients
    of the leaves are written.
    """
    return 2 * bytes_of(*inputs) + 2 * output + bytes_of(*(t for t in inputs if t.requires_grad))
