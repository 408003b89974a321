"""The product of a few rows with a tall weight."""

import pytest
import torch
import torch.nn.functional as F

from braingpt.kernels.linear import linear


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
