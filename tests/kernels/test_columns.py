"""The packed columns against a plain definition in float64: every token, every winner, one by one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braingpt.kernels.columns import columns as kernel
from braingpt.kernels.columns.mkl_products import MKLBatch, mkl_unavailable_reason
from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.columns.reference import reference
from braingpt.kernels.columns.torch_products import GroupedMM, PerColumn
from tests.kernels.compare import normal, same_gradients


def problem(tokens: int, count: int, active: int, width: int, hidden: int, used: int | None = None):
    """Inputs of `columns`; only the first `used` columns win."""
    x = normal(0, tokens, hidden).requires_grad_()
    weight = normal(1, count, 2, width, hidden).requires_grad_()
    winner = normal(2, tokens, used or count).topk(active).indices
    share = torch.softmax(normal(3, tokens, active), -1).requires_grad_()
    return x, weight, winner, share


def definition(x, weight, winner, share):
    """Every token through every one of its winners."""
    up, down = weight[winner].unbind(2)
    act = F.relu(torch.einsum("nd,nawd->naw", x, up)).square()
    return torch.einsum("naw,na,nawd->nd", act, share, down)


shapes = st.tuples(
    st.integers(1, 40),
    st.integers(4, 40),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(3, 4),
)


@pytest.fixture(params=["MKL batch", "per column"])
def cpu_backend(request, monkeypatch):
    if request.param == "MKL batch" and mkl_unavailable_reason():
        pytest.skip(mkl_unavailable_reason())
    monkeypatch.setenv("BRAINGPT_KERNELS", f"columns={request.param}")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes)
def test_packed_columns_equal_the_definition(cpu_backend, shape):
    inputs = problem(*shape)
    x, weight, winner, share = inputs
    expected = definition(*inputs)
    y, act = kernel.columns(*inputs)
    same_gradients(y, expected, (x, weight, share))
    assert not act.requires_grad and act.shape == (winner.numel(), weight.shape[2])
    same_gradients(reference(*inputs)[0], expected, (x, weight, share))
    with torch.no_grad():
        y, again = kernel.columns(*inputs)
    torch.testing.assert_close(y, expected)
    assert (again > 0).sum() == (act > 0).sum()


def test_a_column_without_rows_has_a_zero_gradient_and_is_not_read(cpu_backend):
    x, weight, winner, share = problem(50, 9, 2, 4, 6, used=5)
    with torch.no_grad():
        weight[5:] = float("nan")
    y, _ = kernel.columns(x, weight, winner, share)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert (weight.grad[5:] == 0).all() and (weight.grad[:5] != 0).any()


def test_the_reference_on_demand(monkeypatch):
    inputs = problem(20, 6, 2, 4, 6)
    fast = kernel.columns(*inputs)[0]
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    torch.testing.assert_close(kernel.columns(*inputs)[0], fast)


def test_grouped_products_agree_with_the_loop():
    """torch's grouped product is the path of GPUs without Triton; its CPU form shows that offsets and layouts
    are what it expects.
    """
    x, weight, winner, _ = (
        t.bfloat16() if t.is_floating_point() else t for t in problem(60, 7, 2, 16, 32, used=5)
    )
    pairs = Pairs.of(winner, 7)
    loop, grouped = PerColumn(pairs.start), GroupedMM(pairs.start)
    rows, neurons = x.detach()[pairs.token], normal(5, 120, 16).bfloat16()
    for a, b in (
        (loop.times(rows, weight[:, 0].detach().mT), grouped.times(rows, weight[:, 0].detach().mT)),
        (loop.times(neurons, weight[:, 1].detach()), grouped.times(neurons, weight[:, 1].detach())),
    ):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    outer = [torch.empty(7, 16, 32, dtype=torch.bfloat16) for _ in range(2)]
    loop.outer(neurons, rows, outer[0])
    grouped.outer(neurons, rows, outer[1])
    torch.testing.assert_close(*outer, rtol=2e-2, atol=5e-2)


def test_torch_compile_accepts_the_operator():
    x, weight, winner, share = problem(40, 6, 2, 4, 6)
    compiled = torch.compile(lambda *inputs: kernel.columns(*inputs)[0], backend="aot_eager", fullgraph=True)
    same_gradients(
        compiled(x, weight, winner, share), kernel.columns(x, weight, winner, share)[0], (x, weight, share)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_keeps_torchs_rules(dtype):
    x, weight, winner, share = (
        t.detach().to(dtype) if t.is_floating_point() else t for t in problem(40, 6, 2, 4, 6)
    )
    pairs = Pairs.of(winner, 6)
    arguments = (x.requires_grad_(), weight.requires_grad_(), share.requires_grad_(), *pairs)
    torch.library.opcheck(
        torch.ops.braingpt.columns, arguments, test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.skipif(mkl_unavailable_reason() is not None, reason=str(mkl_unavailable_reason()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_products_are_the_same_for_any_number_of_threads(dtype):
    sizes = torch.tensor([0, 70, 1, 0, 33, 200])
    start = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    x, matrix = normal(0, 304, 40).to(dtype), normal(1, 6, 2, 40, 24).to(dtype)[:, 1]
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        products, out = MKLBatch(start), torch.full((6, 40, 24), torch.nan, dtype=dtype)
        y = products.times(x, matrix)
        products.outer(x, y, out)
        found.append((y, products.times(y, matrix.mT), out))
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    wanted = torch.cat([rows @ one for rows, one in zip(x.split(sizes.tolist()), matrix, strict=True)])
    torch.testing.assert_close(found[0][0], wanted)
