"""The operations that a benchmark of kernels times.

Shapes are those of a size's `v1` and `v2` recipes. Inputs are random and of the type that the trained model
hands over: its own weights are float32, and products run under autocast.

Legend: B batch, L tokens, N = B x L, H heads, K channels a head, D hidden, E columns, A winners, W neurons a
column, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.bench.kernels.shapes import (
    TRAINING_PASSES,
    Operation,
    Shapes,
    bytes_moved,
    bytes_of,
    forward_only,
)
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
from braingpt.model.config_parts import MemoryConfig
from braingpt.model.mixers.attention import Attention
from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.sequence_layout import Layout


def _scan_inputs(s: Shapes, length: int) -> tuple[Tensor, ...]:
    """Inputs as the mixer makes them: x, b, c in the products' type, decays and state in float32."""
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
        work=s.training(lambda *t: scan(*t, chunk=config.chunk)[0], inputs),
        flops=TRAINING_PASSES * s.tokens * (2 * chunk * (config.state + inner) + 4 * config.state * inner),
        bytes=bytes_moved(inputs, bytes_of(inputs[0])),
        reference=s.training(lambda *t: scan_reference.recurrent(*t)[0], inputs),
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
        work=forward_only(scan_reference.step, (x[:, 0], dt[:, 0], a, b[:, 0], c[:, 0], state)),
        flops=6 * state.numel(),
        bytes=2 * bytes_of(state) + 2 * bytes_of(x) + bytes_of(dt, b, c),
        dense=forward_only(F.scaled_dot_product_attention, (q, k, v)),
        dense_is=f"attention over {s.context:,} keys",
        float32=True,
    )


def columns_training(s: Shapes) -> Operation:
    """Columns computed where they win, against an MLP of as many neurons."""
    return _columns(s, s.tokens, learn=True)


def columns_step(s: Shapes) -> Operation:
    """The same for one token of generation: only the winners' weights are read."""
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
    run = s.training if learn else forward_only
    few = not learn and winner.numel() <= columns_kernel.FEW_PAIRS
    # Columns that no token chooses are not read.
    weights = len(winner.unique()) / config.count * bytes_of(weight)
    return Operation(
        path="vectors" if few else dispatch.select("columns", x),
        work=run(lambda x, w, p: columns_kernel.columns(x, w, winner, p)[0], (x, weight, share)),
        flops=(TRAINING_PASSES if learn else 1) * 4 * winner.numel() * config.width * hidden,
        bytes=bytes_moved((x, share), bytes_of(x)) + 3 * weights if learn else weights + 2 * bytes_of(x),
        reference=run(lambda x, w, p: columns_reference(x, w.to(x.dtype), winner, p)[0], (x, weight, share)),
        dense=run(lambda x, up, down: F.linear(pointwise.squared_relu(F.linear(x, up)), down), (x, up, down)),
        dense_is=f"an MLP of {neurons:,} neurons",
        float32=not learn,
    )


def magnitude_training(s: Shapes) -> Operation:
    """V1's attention, which reads the values of its largest scores only but computes all scores."""
    config, heads = s.v1.attention, s.v1.heads
    channels = s.v1.hidden // heads
    qkv = tuple(s.random(s.batch, heads, s.context, channels) for _ in range(3))
    reach_1L = reach(None, s.context, s.context, torch.device("cpu"))
    kept = quotas(reach_1L, config.keep, config.floor).sum().item()
    return Operation(
        path=dispatch.select("magnitude_attention", qkv[0]),
        work=s.training(
            lambda q, k, v: magnitude_attention(q, k, v, None, config.keep, config.floor)[0],
            qkv,
        ),
        flops=TRAINING_PASSES * 2 * s.batch * s.v1.hidden * (s.context * (s.context + 1) / 2 + kept),
        bytes=bytes_moved(qkv, bytes_of(qkv[0])),
        reference=s.training(
            lambda q, k, v: magnitude_reference(q, k, v, None, config.keep, config.floor)[0], qkv
        ),
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
    works = [s.training(lambda x, *_, m=m: m(x, layout), (x, *m.parameters())) for m in (layer, full)]
    return Operation(
        path="torch",
        work=works[0],
        flops=TRAINING_PASSES * s.tokens * layer.flops(s.context),
        bytes=bytes_moved((x,), bytes_of(x)) + 3 * 4 * weights,
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
        work=s.training(lambda *t: delta_rule.gated_delta_rule(*t, chunk=config.chunk)[0], inputs),
        flops=TRAINING_PASSES
        * s.tokens
        * config.heads
        * delta_rule.flops(config.key, config.value, min(config.chunk, s.context)),
        bytes=bytes_moved(inputs, bytes_of(v)),
        reference=s.training(lambda *t: delta_rule.recurrent(*t)[0], inputs),
        dense=s.attention(config.heads, config.value),
        dense_is="causal attention",
    )


def cross_entropy_training(s: Shapes) -> Operation:
    """The head's loss without holding all logits, against all logits at once."""
    x, weight = s.random(s.tokens, s.v2.hidden), s.random(s.v2.vocab, s.v2.hidden, scale=0.02)
    target = torch.randint(s.v2.vocab, (s.tokens,), device=s.device)

    def loss(x_ND: Tensor, weight_VD: Tensor) -> Tensor:
        return cross_entropy.linear_cross_entropy(x_ND, weight_VD, target)

    return Operation(
        path=dispatch.select("cross_entropy"),
        work=s.training(loss, (x, weight)),
        flops=TRAINING_PASSES * 2 * s.tokens * weight.numel(),
        bytes=bytes_moved((x, weight), 0),
        reference=s.training(lambda x, w: cross_entropy.reference(x, w, target), (x, weight)),
    )


def int8_row(s: Shapes) -> Operation:
    """The head's product with one row, in int8 and in float32."""
    weight, x = (
        s.random(s.v2.vocab, s.v2.hidden, dtype=torch.float32, learn=False),
        s.random(1, s.v2.hidden, dtype=torch.float32, learn=False),
    )
    values, scale = int8.quantize(weight)
    return Operation(
        path=dispatch.select("int8_linear", x),
        work=forward_only(int8.int8_linear, (x, values, scale)),
        flops=2 * weight.numel(),
        bytes=bytes_of(values, scale, x) + 4 * len(weight),
        reference=forward_only(int8.reference, (x, values, scale)),
        dense=forward_only(F.linear, (x, weight)),
        dense_is="the float32 product",
        float32=True,
    )


def two_four_product(s: Shapes) -> Operation:
    """V1's MLP product with 2:4 weights, where nothing learns.

    The weights are compressed where that is faster on this machine, else dense with zeros.
    """
    inputs, outputs = s.v1.hidden, s.v1.columns.count * s.v1.columns.width
    layer = TwoFourLinear(inputs, outputs).to(s.device, s.dtype)
    x, weight = s.random(s.tokens, inputs, learn=False), layer.weight.detach()
    masked = weight * layer.mask
    sparse = sparse_pays(s.tokens, (weight.shape[0], weight.shape[1]), s.dtype, s.device)
    return Operation(
        path="sparse tensor cores" if sparse else "dense with zeros",
        work=forward_only(layer, (x,)),
        # Half of the dense product's.
        flops=s.tokens * weight.numel(),
        bytes=bytes_of(x) + bytes_of(weight) // 2 + s.tokens * outputs * x.element_size(),
        reference=forward_only(F.linear, (x, masked)),
        dense=forward_only(F.linear, (x, weight)),
        dense_is="the dense product",
    )


def norm_training(s: Shapes) -> Operation:
    """RMSNorm over the width."""
    x = s.random(s.tokens, s.v2.hidden)
    path = "short backward" if pointwise.uses_short_backward(x) else "torch"
    return Operation(
        path,
        s.training(pointwise.rms_norm, (x,)),
        0,
        bytes_moved((x,), bytes_of(x)),
        s.training(_torch_norm, (x,)),
    )


def _torch_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=pointwise.EPSILON)


def relu_training(s: Shapes) -> Operation:
    """The squared ReLU of V1's MLP."""
    x = s.random(s.tokens, s.v1.columns.count * s.v1.columns.width)
    path = "short backward" if pointwise.learns_eagerly(x) else "torch"
    return Operation(
        path,
        s.training(pointwise.squared_relu, (x,)),
        0,
        bytes_moved((x,), bytes_of(x)),
        s.training(lambda x: F.relu(x).square(), (x,)),
    )


def conv_training(s: Shapes) -> Operation:
    """The mixer's short causal convolution and its SiLU, against torch's depthwise one."""
    config = s.v2.mamba
    channels = round(s.v2.hidden * config.expand) + 2 * config.state
    x, weight = s.random(s.batch, s.context, channels), s.random(channels, config.conv)

    def depthwise(x_BLE: Tensor, weight_EK: Tensor) -> Tensor:
        return F.silu(F.conv1d(F.pad(x_BLE.mT, (config.conv - 1, 0)), weight_EK[:, None], groups=channels)).mT

    flops = TRAINING_PASSES * 2 * x.numel() * config.conv
    return Operation(
        "shifted products",
        s.training(conv.silu_conv, (x, weight)),
        flops,
        bytes_moved((x,), bytes_of(x)),
        s.training(depthwise, (x, weight)),
    )


# By the name that a report shows.
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
