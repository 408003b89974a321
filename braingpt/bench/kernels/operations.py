"""The operations a benchmark of kernels times: each with its reference, its dense counterpart, its operations
and the bytes it cannot avoid.

Shapes are those of a size's `v1` and `v2` recipes; inputs are random and of the type the trained model hands
over (its own weights stay in float32, products run under autocast). Bytes are compulsory traffic: every input
read once forward and once backward, every output and gradient written once. So nothing can be faster than its
limit, and most of what torch does between two operations is not in it.

Legend: B batch, L tokens, N = B x L, H heads, K channels a head, D hidden, E columns, A winners, W neurons a
column, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.bench.clock import Work
from braingpt.device.device import autocast
from braingpt.kernels import conv, cross_entropy, delta_rule, dispatch, int8, pointwise
from braingpt.kernels.columns import columns as columns_kernel
from braingpt.kernels.columns.reference import reference as columns_reference
from braingpt.kernels.scan import reference as scan_reference
from braingpt.kernels.scan.scan import scan
from braingpt.kernels.sparse_attention.quotas import quotas, reach
from braingpt.kernels.sparse_attention.reference import reference as magnitude_reference
from braingpt.kernels.sparse_attention.sparse_attention import magnitude_attention
from braingpt.kernels.two_four import sparse_pays
from braingpt.model.columns.two_four import TwoFourLinear
from braingpt.model.config import MemoryConfig, V1Config, V2Config
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.sequence_layout import Layout

# a forward pass's products, and twice as many backward
BACKWARD = 3


@dataclass(frozen=True)
class Operation:
    """What is called, and what it is held against.

    `reference` None: the operation is its own; `dense` None: it has no dense counterpart.
    """

    path: str
    work: Work
    flops: float
    bytes: float
    reference: Work | None = None
    dense: Work | None = None
    dense_is: str = ""
    # whatever the type of training is
    float32: bool = False


@dataclass(frozen=True)
class Shapes:
    """Where the shapes come from: the models' settings, the batch, the device and the type of products."""

    v1: V1Config
    v2: V2Config
    batch: int
    context: int
    device: torch.device
    dtype: torch.dtype

    @property
    def tokens(self) -> int:
        """N."""
        return self.batch * self.context

    def random(
        self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None, learn: bool = True
    ) -> Tensor:
        """Normal numbers; a leaf that takes a gradient unless told otherwise."""
        return (scale * torch.randn(*shape, device=self.device, dtype=dtype or self.dtype)).requires_grad_(
            learn
        )

    def learning(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Work:
        """Forward and backward, for the gradients of all leaves among the inputs, products in the type of
        training.
        """
        leaves, upstream = [t for t in inputs if t.requires_grad], []

        def call() -> None:
            with autocast(self.device, None if self.dtype == torch.float32 else self.dtype):
                y = function(*inputs)
            if not upstream:
                upstream.append(torch.randn_like(y))
            torch.autograd.grad(y, leaves, upstream[0])

        return call

    def attention(self, heads: int, channels: int) -> Work:
        """torch's causal attention over the same tokens, forward and backward."""
        q, k, v = (self.random(self.batch, heads, self.context, channels) for _ in range(3))
        return self.learning(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), (q, k, v)
        )


def _plain(function: Callable[..., object], inputs: Sequence[object]) -> Work:
    """Forward alone, nothing kept for a backward pass."""

    @torch.no_grad()
    def call() -> None:
        function(*inputs)

    return call


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _moved(inputs: Sequence[Tensor], output: int) -> int:
    """Bytes forward and backward: inputs read twice, the output (so many bytes) written and its gradient
    read, the leaves' gradients written.
    """
    return 2 * _bytes(*inputs) + 2 * output + _bytes(*(t for t in inputs if t.requires_grad))


def _scan_inputs(s: Shapes, length: int) -> tuple[Tensor, ...]:
    """As the mixer makes them: x, b, c in the products' type, decays and state in float32."""
    inner = round(s.v2.hidden * s.v2.mamba.expand)
    heads, state = inner // s.v2.mamba.head, s.v2.mamba.state
    x = s.random(s.batch, length, heads, s.v2.mamba.head)
    dt = F.softplus(torch.randn(s.batch, length, heads, device=s.device) - 4).requires_grad_()
    a = (-torch.linspace(1, 16, heads, device=s.device)).requires_grad_()
    b, c = (s.random(s.batch, length, state) for _ in range(2))
    return x, dt, a, b, c, torch.zeros(s.batch, heads, state, s.v2.mamba.head, device=s.device)


def scan_training(s: Shapes) -> Operation:
    """The state-space scan over whole windows."""
    inputs, config = _scan_inputs(s, s.context), s.v2.mamba
    inner, chunk = inputs[0].shape[2] * inputs[0].shape[3], min(config.chunk, s.context)
    return Operation(
        path=dispatch.select("scan", inputs[0]),
        work=s.learning(lambda *t: scan(*t, chunk=config.chunk)[0], inputs),
        flops=BACKWARD * s.tokens * (2 * chunk * (config.state + inner) + 4 * config.state * inner),
        bytes=_moved(inputs, _bytes(inputs[0])),
        reference=s.learning(lambda *t: scan_reference.recurrent(*t)[0], inputs),
        dense=s.attention(inputs[0].shape[2], config.head),
        dense_is="causal attention",
    )


def scan_step(s: Shapes) -> Operation:
    """One token of the recurrence, against attention of one query over the context's keys."""
    x, dt, a, b, c, state = (t.detach().float() for t in _scan_inputs(s, 1))
    heads, channels = x.shape[2:]
    q, k, v = (
        s.random(s.batch, heads, n, channels, dtype=torch.float32, learn=False)
        for n in (1, s.context, s.context)
    )
    return Operation(
        path="torch",
        work=_plain(scan_reference.step, (x[:, 0], dt[:, 0], a, b[:, 0], c[:, 0], state)),
        flops=6 * state.numel(),
        bytes=2 * _bytes(state) + 2 * _bytes(x) + _bytes(dt, b, c),
        dense=_plain(F.scaled_dot_product_attention, (q, k, v)),
        dense_is=f"attention over {s.context:,} keys",
        float32=True,
    )


def columns_training(s: Shapes) -> Operation:
    """Columns computed where they win, against an MLP of as many neurons."""
    return _columns(s, s.tokens, learn=True)


def columns_step(s: Shapes) -> Operation:
    """The same for the one token of a step of generation: only the winners' weights are read."""
    return _columns(s, 1, learn=False)


def _columns(s: Shapes, tokens: int, learn: bool) -> Operation:
    config, hidden = s.v2.columns, s.v2.hidden
    dtype = s.dtype if learn else torch.float32
    x = s.random(tokens, hidden, dtype=dtype, learn=learn)
    weight = s.random(config.count, 2, config.width, hidden, scale=0.03, dtype=torch.float32, learn=learn)
    winner = torch.rand(tokens, config.count, device=s.device).topk(config.active).indices
    share = torch.full(
        (tokens, config.active), 1 / config.active, device=s.device, dtype=dtype
    ).requires_grad_(learn)
    neurons = config.count * config.width
    up, down = (
        s.random(*shape, scale=0.03, dtype=dtype, learn=learn)
        for shape in ((neurons, hidden), (hidden, neurons))
    )
    run = s.learning if learn else _plain
    # what no token chooses is not read
    weights = len(winner.unique()) / config.count * _bytes(weight)
    return Operation(
        path="vectors"
        if not learn and winner.numel() <= columns_kernel.FEW_PAIRS
        else dispatch.select("columns", x),
        work=run(lambda x, w, p: columns_kernel.columns(x, w, winner, p)[0], (x, weight, share)),
        flops=(BACKWARD if learn else 1) * 4 * winner.numel() * config.width * hidden,
        bytes=_moved((x, share), _bytes(x)) + 3 * weights if learn else weights + 2 * _bytes(x),
        reference=run(
            lambda x, w, p: columns_reference(x, w.to(x.dtype), winner, p)[0], (x, weight, share)
        ),
        dense=run(lambda x, up, down: F.linear(pointwise.squared_relu(F.linear(x, up)), down), (x, up, down)),
        dense_is=f"an MLP of {neurons:,} neurons",
        float32=not learn,
    )


def magnitude_training(s: Shapes) -> Operation:
    """V1's attention, which reads the values of its largest scores only but has to compute all scores."""
    config, heads = s.v1.attention, s.v1.heads
    channels = s.v1.hidden // heads
    qkv = tuple(s.random(s.batch, heads, s.context, channels) for _ in range(3))
    settings = (None, config.keep, config.floor)
    reach_1L = reach(None, s.context, s.context, torch.device("cpu"))
    kept = quotas(reach_1L, config.keep, config.floor).sum().item()
    return Operation(
        path=dispatch.select("magnitude_attention", qkv[0]),
        work=s.learning(lambda *t: magnitude_attention(*t, *settings)[0], qkv),
        flops=BACKWARD * 2 * s.batch * s.v1.hidden * (s.context * (s.context + 1) / 2 + kept),
        bytes=_moved(qkv, _bytes(qkv[0])),
        reference=s.learning(lambda *t: magnitude_reference(*t, *settings)[0], qkv),
        dense=s.attention(heads, channels),
        dense_is="causal attention",
    )


def selective_training(s: Shapes) -> Operation:
    """The whole layer of selective attention, choice and projections included, against the dense layer."""
    heads, base, config = s.v2.heads, s.v2.rope_base, s.v2.attention
    layer = SelectiveAttention(s.v2.hidden, heads, base, config.rate, config.kv_heads).to(s.device)
    full = Attention(s.v2.hidden, heads, base, config.kv_heads).to(s.device)
    x = s.random(s.batch, s.context, s.v2.hidden)
    layout = Layout.of(torch.zeros(s.batch, s.context, dtype=torch.long, device=s.device), None, None)
    weights = sum(p.numel() for p in layer.parameters())
    works = [s.learning(lambda x, *_, m=m: m(x, layout), (x, *m.parameters())) for m in (layer, full)]
    return Operation(
        path="torch",
        work=works[0],
        flops=BACKWARD * s.tokens * layer.flops(s.context),
        bytes=_moved((x,), _bytes(x)) + 3 * 4 * weights,
        dense=works[1],
        dense_is="a layer of attention",
    )


def delta_training(s: Shapes) -> Operation:
    """The gated delta rule of episodic memory's fast tier."""
    config = s.v2.memory if s.v2.memory.layers else MemoryConfig()
    shape = (s.batch, s.context, config.heads)
    q, k = (F.normalize(s.random(*shape, config.key, learn=False), dim=-1).requires_grad_() for _ in range(2))
    v = s.random(*shape, config.value)
    beta = torch.rand(shape, device=s.device).requires_grad_()
    decay = (-0.01 * torch.rand(shape, device=s.device)).requires_grad_()
    state = torch.zeros(s.batch, config.heads, config.key, config.value, device=s.device)
    inputs = (q, k, v, beta, decay, state)
    return Operation(
        path=dispatch.select("delta rule"),
        work=s.learning(lambda *t: delta_rule.gated_delta_rule(*t, chunk=config.chunk)[0], inputs),
        flops=BACKWARD
        * s.tokens
        * config.heads
        * delta_rule.flops(config.key, config.value, min(config.chunk, s.context)),
        bytes=_moved(inputs, _bytes(v)),
        reference=s.learning(lambda *t: delta_rule.recurrent(*t)[0], inputs),
        dense=s.attention(config.heads, config.value),
        dense_is="causal attention",
    )


def cross_entropy_training(s: Shapes) -> Operation:
    """Loss of the head without all logits, against all of them at once."""
    x, weight = s.random(s.tokens, s.v2.hidden), s.random(s.v2.vocab, s.v2.hidden, scale=0.02)
    target = torch.randint(s.v2.vocab, (s.tokens,), device=s.device)
    return Operation(
        path=dispatch.select("cross_entropy"),
        work=s.learning(lambda x, w: cross_entropy.linear_cross_entropy(x, w, target), (x, weight)),
        flops=BACKWARD * 2 * s.tokens * weight.numel(),
        bytes=_moved((x, weight), 0),
        reference=s.learning(lambda x, w: cross_entropy.reference(x, w, target), (x, weight)),
    )


def int8_row(s: Shapes) -> Operation:
    """The head's product with one row, as int8 and in float32."""
    weight, x = (
        s.random(s.v2.vocab, s.v2.hidden, dtype=torch.float32, learn=False),
        s.random(1, s.v2.hidden, dtype=torch.float32, learn=False),
    )
    values, scale = int8.quantize(weight)
    return Operation(
        path=dispatch.select("int8_linear", x),
        work=_plain(int8.int8_linear, (x, values, scale)),
        flops=2 * weight.numel(),
        bytes=_bytes(values, scale, x) + 4 * len(weight),
        reference=_plain(int8.reference, (x, values, scale)),
        dense=_plain(F.linear, (x, weight)),
        dense_is="the float32 product",
        float32=True,
    )


def two_four_product(s: Shapes) -> Operation:
    """V1's MLP product with 2:4 weights where nothing learns; compressed where the machine's own timing says
    it pays, else dense with zeros.
    """
    inputs, outputs = s.v1.hidden, s.v1.columns.count * s.v1.columns.width
    layer = TwoFourLinear(inputs, outputs).to(s.device, s.dtype)
    x, weight = s.random(s.tokens, inputs, learn=False), layer.weight.detach()
    masked = weight * layer.mask
    sparse = sparse_pays(s.tokens, tuple(weight.shape), s.dtype, s.device)
    return Operation(
        path="sparse tensor cores" if sparse else "dense with zeros",
        work=_plain(layer, (x,)),
        # half of the dense product's
        flops=s.tokens * weight.numel(),
        bytes=_bytes(x) + _bytes(weight) // 2 + s.tokens * outputs * x.element_size(),
        reference=_plain(F.linear, (x, masked)),
        dense=_plain(F.linear, (x, weight)),
        dense_is="the dense product",
    )


def norm_training(s: Shapes) -> Operation:
    """RMSNorm over the width."""
    x = s.random(s.tokens, s.v2.hidden)
    path = "short backward" if pointwise.uses_short_backward(x) else "torch"
    return Operation(
        path, s.learning(pointwise.rms_norm, (x,)), 0, _moved((x,), _bytes(x)), s.learning(_torch_norm, (x,))
    )


def _torch_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=pointwise.EPSILON)


def relu_training(s: Shapes) -> Operation:
    """The squared ReLU of V1's MLP."""
    x = s.random(s.tokens, s.v1.columns.count * s.v1.columns.width)
    path = "short backward" if pointwise.learns_eagerly(x) else "torch"
    return Operation(
        path,
        s.learning(pointwise.squared_relu, (x,)),
        0,
        _moved((x,), _bytes(x)),
        s.learning(lambda x: F.relu(x).square(), (x,)),
    )


def conv_training(s: Shapes) -> Operation:
    """The mixer's short causal convolution and its SiLU, against torch's depthwise one."""
    config = s.v2.mamba
    channels = round(s.v2.hidden * config.expand) + 2 * config.state
    x, weight = s.random(s.batch, s.context, channels), s.random(channels, config.conv)

    def depthwise(x_BLE: Tensor, weight_EK: Tensor) -> Tensor:
        return F.silu(F.conv1d(F.pad(x_BLE.mT, (config.conv - 1, 0)), weight_EK[:, None], groups=channels)).mT

    flops = BACKWARD * 2 * x.numel() * config.conv
    return Operation(
        "shifted products",
        s.learning(conv.silu_conv, (x, weight)),
        flops,
        _moved((x,), _bytes(x)),
        s.learning(depthwise, (x, weight)),
    )


OPERATIONS: dict[str, Callable[[Shapes], Operation]] = {
    "scan": scan_training,
    "scan, one token": scan_step,
    "columns": columns_training,
    "columns, one token": columns_step,
    "magnitude attention": magnitude_training,
    "selective attention": selective_training,
    "delta rule": delta_training,
    "cross-entropy": cross_entropy_training,
    "int8 head, one token": int8_row,
    "2:4 product": two_four_product,
    "norm": norm_training,
    "squared ReLU": relu_training,
    "convolution": conv_training,
}
