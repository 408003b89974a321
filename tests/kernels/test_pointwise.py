"""Norm, activation and gated norm with short backward passes, against autograd in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import pointwise
from tests.kernels.compare import normal, same_gradients

few = settings(max_examples=20, deadline=None)


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
