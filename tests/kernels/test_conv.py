"""The short convolution against torch's, and its SiLU with a backward pass of its own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import conv
from tests.kernels.compare import normal, same_gradients

few = settings(max_examples=20, deadline=None)


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
