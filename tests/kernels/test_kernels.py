"""Every fast path against its float64 reference, in value and gradient, over odd shapes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import conv, cross_entropy, pointwise, registry
from braingpt.kernels.linear import linear
from braingpt.kernels.scan.chunked import chunked
from braingpt.kernels.scan.reference import recurrent

few = settings(max_examples=20, deadline=None)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_gradients(first, second, inputs) -> None:
    """Both results, and their gradients under one random upstream, agree."""
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)
    upstream = normal(99, *first.shape)
    grads = [
        torch.autograd.grad(out, inputs, upstream, retain_graph=True, allow_unused=True)
        for out in (first, second)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@few
@given(
    st.integers(1, 3),
    st.integers(1, 37),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 16),
    st.booleans(),
    st.data(),
)
def test_chunked_scan_equals_the_recurrence(batch, length, heads, width, state, chunk, documents, data):
    x = normal(0, batch, length, heads, width).requires_grad_()
    dt = F.softplus(normal(1, batch, length, heads)).requires_grad_()
    a = (-torch.exp(normal(2, heads))).requires_grad_()
    b, c = normal(3, batch, length, state).requires_grad_(), normal(4, batch, length, state).requires_grad_()
    initial = normal(5, batch, heads, state, width).requires_grad_()
    run = None
    if documents:
        starts = torch.tensor(
            data.draw(st.lists(st.booleans(), min_size=batch * length, max_size=batch * length))
        )
        run = starts.view(batch, length).long().cumsum(1)
    inputs = (x, dt, a, b, c, initial)
    y, last = chunked(*inputs, run, chunk=chunk)
    y_ref, last_ref = recurrent(*inputs, run)
    same_gradients(
        torch.cat([y.flatten(), last.flatten()]), torch.cat([y_ref.flatten(), last_ref.flatten()]), inputs
    )


def test_scan_of_strong_decay_stays_finite():
    x, b, c = (torch.randn(1, 256, *rest) for rest in ((2, 8), (4,), (4,)))
    dt = torch.full((1, 256, 2), 40.0).requires_grad_()
    y, state = chunked(x, dt, torch.tensor([-16.0, -1e-3]), b, c, torch.zeros(1, 2, 4, 8))
    (y.sum() + state.sum()).backward()
    assert y.isfinite().all() and dt.grad.isfinite().all()


@few
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 5), st.integers(2, 5))
def test_conv_equals_torch_conv1d(batch, length, channels, taps):
    x, weight, past = (
        normal(0, batch, length, channels),
        normal(1, channels, taps),
        normal(2, batch, taps - 1, channels),
    )
    expected = F.conv1d(torch.cat([past, x], 1).mT, weight[:, None], groups=channels).mT
    torch.testing.assert_close(conv.causal_conv(x, weight, past), expected)


@few
@given(st.integers(1, 300), st.integers(1, 9), st.integers(2, 50), st.data())
def test_fused_cross_entropy_equals_the_definition(tokens, width, vocabulary, data):
    x, weight = normal(0, tokens, width).requires_grad_(), normal(1, vocabulary, width).requires_grad_()
    target = torch.randint(0, vocabulary, (tokens,), generator=torch.Generator().manual_seed(2))
    target[
        torch.rand(tokens, generator=torch.Generator().manual_seed(3))
        < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    ] = -100
    chunk = data.draw(st.sampled_from([1, 64, 256, 1024]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "_chunk_size", lambda *_: chunk)
        fused = cross_entropy.linear_cross_entropy(x, weight, target)
        same_gradients(fused[None], cross_entropy.reference(x, weight, target)[None], (x, weight))
        with torch.no_grad():
            each = cross_entropy.linear_cross_entropy(x, weight, target, "none")
    torch.testing.assert_close(each, cross_entropy.reference(x, weight, target, "none").detach())


def test_fused_cross_entropy_under_autocast_is_not_rounded():
    x, weight = normal(0, 300, 16).float().requires_grad_(), normal(1, 50, 16).float().requires_grad_()
    target = torch.randint(0, 50, (300,), generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(F.linear(x.bfloat16(), weight.bfloat16()).float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy.linear_cross_entropy(x.bfloat16(), weight.bfloat16(), target)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-5)


@few
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 5), st.integers(2, 5), st.integers(1, 9))
def test_silu_conv_in_pieces_equals_the_definition(batch, length, channels, taps, piece):
    wide, weight = (
        normal(0, batch, length, channels + 2).requires_grad_(),
        normal(1, channels, taps).requires_grad_(),
    )
    # rows apart in memory, as those of a split product are
    x = wide[..., 1:-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "BLOCK_ROWS", piece)
        found = conv.silu_conv(x, weight)
        assert "SiluConv" in found.grad_fn.name()
        same_gradients(found, F.silu(conv.causal_conv(x, weight)), (wide, weight))


@few
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 8), st.integers(1, 9))
def test_gated_norm_in_pieces_equals_the_definition(batch, length, width, piece):
    wide, y = (
        normal(0, batch, length, 2 * width + 1).requires_grad_(),
        normal(1, batch, length, width).requires_grad_(),
    )
    x, z = wide[..., :width], wide[..., -width:]
    skip, scale = normal(2, width).requires_grad_(), normal(3, width).requires_grad_()
    expected = F.rms_norm((y + skip * x) * F.silu(z), (width,), eps=pointwise.EPSILON) * scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointwise, "BLOCK_ROWS", piece)
        found = pointwise.gated_norm(y, x, skip, z, scale)
        assert "GatedNorm" in found.grad_fn.name()
        same_gradients(found, expected, (wide, y, skip, scale))


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([1e-3, 1.0, 1e3]), st.booleans())
def test_short_backward_passes_equal_autograds(shape, scale, turned):
    x = (normal(sum(shape), *shape) * scale).requires_grad_()
    seen = x.transpose(0, -1) if turned else x
    same_gradients(pointwise.rms_norm(seen), F.rms_norm(seen, seen.shape[-1:], eps=pointwise.EPSILON), (x,))
    same_gradients(pointwise.squared_relu(seen / scale), F.relu(seen / scale).square(), (x,))


def test_short_backward_passes_are_taken_where_they_serve(monkeypatch):
    x = torch.ones(2, 4, requires_grad=True)
    assert (
        "RMSNorm" in pointwise.rms_norm(x).grad_fn.name()
        and "SquaredReLU" in pointwise.squared_relu(x).grad_fn.name()
    )
    assert "RMSNorm" not in pointwise.rms_norm(x.bfloat16()).grad_fn.name(), (
        "half precision needs float32 inside"
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert pointwise.squared_relu(x.bfloat16()).dtype == torch.bfloat16, (
            "autocast would square in float32"
        )
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    assert "SquaredReLU" not in pointwise.squared_relu(x).grad_fn.name()


def test_cross_entropy_of_a_hopeless_token_is_finite():
    x, weight = torch.tensor([[200.0]], requires_grad=True), torch.tensor([[1.0], [-1.0]])
    loss = cross_entropy.linear_cross_entropy(x, weight, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite() and x.grad.item() == pytest.approx(2.0)


def test_a_loss_gives_its_gradients_once():
    x, weight = normal(0, 5, 4).requires_grad_(), normal(1, 7, 4).requires_grad_()
    loss = cross_entropy.linear_cross_entropy(x, weight, torch.arange(5))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()


def test_dispatch_names_one_path_and_the_reference_on_demand(monkeypatch):
    rows = {row["operation"]: row for row in registry.report()}
    assert {"scan", "columns", "cross_entropy", "magnitude_attention"} <= set(rows)
    assert rows["scan"]["runs"] == ("triton" if torch.cuda.is_available() else "chunked") and all(
        reason for row in rows.values() for reason in row["others"].values()
    )
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    assert all(row["runs"] == "torch" for row in registry.report())


@pytest.mark.parametrize("asked", ["scan=flash", "scna=fla", "fla", "torch,scan=fla"])
def test_a_wrong_choice_of_kernels_is_told(monkeypatch, asked):
    monkeypatch.setenv("BRAINGPT_KERNELS", asked)
    assert registry.wrong_choice().startswith("BRAINGPT_KERNELS asks for ")


@pytest.mark.parametrize("asked", ["torch", "scan=chunked", "scan=chunked,columns=per column"])
def test_a_right_choice_of_kernels_passes(monkeypatch, asked):
    monkeypatch.setenv("BRAINGPT_KERNELS", asked)
    assert registry.wrong_choice() is None


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9])
def test_a_few_rows_times_a_tall_weight_are_the_same_the_other_way_round(rows, monkeypatch):
    turned = []
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b, plain=torch.Tensor.__matmul__: turned.append(a.shape) or plain(a, b),
    )
    x, tall, wide = torch.randn(1, rows, 512), torch.randn(2048, 512), torch.randn(512, 2048)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, tall), F.linear(x, tall), rtol=1e-4, atol=1e-4)
        linear(torch.randn(1, rows, 2048), wide)
    assert turned == ([tall.shape] if 2 <= rows <= 8 else [])
    linear(x, tall.requires_grad_()).sum().backward()
    assert len(turned) == (2 <= rows <= 8), "not while learning"
