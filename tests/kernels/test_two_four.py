"""2:4 weights: the choice, its gradient, the compressed form, and the gate before the sparse product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braingpt.kernels import dispatch, two_four
from braingpt.kernels.two_four import compress, expand, masked_weight, sparse_pays, two_four_mask


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_two_largest_of_four_are_kept_and_of_equals_the_first():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    largest = weight.abs().view(16, -1, 4).topk(2).indices
    assert torch.equal(
        two_four_mask(weight).view(16, -1, 4),
        torch.zeros(16, 16, 4, dtype=torch.bool).scatter_(-1, largest, True),
    )
    few = torch.randint(-2, 3, (16, 64), generator=torch.Generator().manual_seed(0)).float()
    order = few.abs().view(16, -1, 4).sort(dim=-1, descending=True, stable=True).indices[..., :2]
    assert torch.equal(
        two_four_mask(few).view(16, -1, 4), torch.zeros(16, 16, 4, dtype=torch.bool).scatter_(-1, order, True)
    )


def test_two_four_keeps_the_two_largest_and_passes_gradients():
    weight = drawn(0, 6, 16).requires_grad_()
    mask = two_four_mask(weight)
    groups = weight.detach().abs().view(-1, 4)
    kept = torch.where(mask.view(-1, 4), groups, torch.inf).amin(1)
    dropped = torch.where(mask.view(-1, 4), -torch.inf, groups).amax(1)
    assert (mask.view(-1, 4).sum(1) == 2).all() and (kept >= dropped).all()
    masked_weight(weight, mask, decay=0.1).sum().backward()
    torch.testing.assert_close(weight.grad, 1 + 0.1 * weight.detach() * ~mask)


@given(st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_the_compressed_form_holds_everything(outputs, groups, zeros):
    weight = drawn(groups, outputs, 4 * groups)
    # a kept weight may be zero; its place is kept all the same
    if zeros:
        weight[:, ::3] = 0
    mask = two_four_mask(weight)
    values, codes = compress(weight, mask)
    assert (
        values.numel() == weight.numel() // 2
        and codes.dtype == torch.uint8
        and codes.shape == (outputs, -(-groups // 2))
    )
    whole, where = expand(values, codes)
    assert torch.equal(whole, weight * mask) and torch.equal(where, mask)


def test_the_gate_stays_dense_where_sparse_does_not_pay(monkeypatch):
    asked = []
    monkeypatch.setattr(
        two_four, "gain", lambda *shape: asked.append(shape) or {8: 1.2, 1: 1.04}.get(shape[0], 0.0)
    )
    key = ((64, 128), torch.bfloat16, torch.device("cpu"))
    assert not sparse_pays(7, *key) and not asked, "without a GPU nothing is even timed"
    monkeypatch.setattr(dispatch, "select", lambda *_: "sparse tensor cores")
    assert (
        sparse_pays(7, *key)
        and sparse_pays(8, *key)
        and not sparse_pays(1, *key)
        and not sparse_pays(9, *key)
    )
    assert [shape[0] for shape in asked] == [8, 8, 1, 16]


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs sparse tensor cores",
)
def test_sparse_tensor_cores_give_the_dense_product(monkeypatch):
    from braingpt.model.columns.two_four import TwoFourLinear

    layer = TwoFourLinear(128, 256).cuda().eval()
    x = torch.randn(32, 128, device="cuda", dtype=torch.bfloat16)
    assert two_four.gain(32, (256, 128), torch.bfloat16, x.device) > 0
    with torch.no_grad():
        monkeypatch.setattr(two_four, "gain", lambda *_: 2.0)
        y = layer(x)
        expected = x.float() @ layer.effective_weight().T
    assert layer._sparse and (y.float() - expected).abs().max() < 0.05 * expected.abs().max()
