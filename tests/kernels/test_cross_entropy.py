"""The fused cross-entropy against the definition in float64, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import cross_entropy
from tests.kernels.compare import normal, same_gradients

few = settings(max_examples=20, deadline=None)


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
