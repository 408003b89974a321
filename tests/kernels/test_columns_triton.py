"""The Triton kernels of the columns against the definition in float64, by value and gradient; on a GPU, else
in Triton's interpreter.
"""

import pytest
import torch

from braingpt.kernels.columns import columns as kernel
from tests.kernels.test_columns import definition, problem

GPU = torch.cuda.is_available()
columns_ops = pytest.importorskip("braingpt.kernels.columns.triton_ops")

# tokens, columns, winners, width, hidden, columns that win
CASES = [
    (1, 5, 1, 64, 64, 5),
    # hidden less than a block, columns without rows
    (7, 40, 2, 64, 48, 33),
    # more than a tile of rows a column, hidden no multiple of the block
    (90, 3, 2, 64, 70, 2),
    (33, 6, 3, 128, 130, 6),
    (20, 4, 1, 16, 32, 4),
]


@pytest.fixture(autouse=True)
def triton_is_asked_for(monkeypatch):
    monkeypatch.setenv("BRAINGPT_KERNELS", "columns=triton")


@pytest.mark.skipif(not GPU, reason="too many rows for the interpreter")
@pytest.mark.parametrize(("columns", "width"), [(16, 64), (16, 128), (64, 64)], ids=str)
def test_columns_with_many_rows(columns, width):
    """The tiles and the copy of the weights that an H100 takes where a column has hundreds of rows."""
    x, weight, winner, share = problem(4096, columns, 4, width, 320)
    x, share = (t.detach().bfloat16().cuda().requires_grad_() for t in (x, share))
    weight, winner = weight.detach().bfloat16().float().cuda().requires_grad_(), winner.cuda()
    y, _ = kernel.columns(x, weight, winner, share)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, share)]
    dense = torch.zeros(4096, columns, dtype=torch.float64, device="cuda").scatter(1, winner, exact[2])
    up, down = exact[1].unbind(1)
    expected = sum(
        dense[:, e, None] * (torch.relu(exact[0] @ up[e].T).square() @ down[e]) for e in range(columns)
    )
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).bfloat16().cuda()
    grads = torch.autograd.grad(y, (x, weight, share), upstream)
    for got, want in zip(
        (y, *grads), (expected, *torch.autograd.grad(expected, exact, upstream.double())), strict=True
    ):
        assert (got.double() - want).abs().max() <= TOLERANCE[torch.bfloat16] * want.abs().max()


TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, dtype):
    device = "cuda" if GPU else "cpu"
    x, weight, winner, share = problem(*case)
    # Inputs that bfloat16 holds exactly; weights stay in float32, as in training.
    x, share = ((t.detach().to(dtype).to(device)).requires_grad_() for t in (x, share))
    weight = weight.detach().bfloat16().float().to(device).requires_grad_()
    winner = winner.to(device)
    assert kernel._backend(x, weight) == "triton"
    y, act = kernel.columns(x, weight, winner, share)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, share)]
    expected = definition(exact[0], exact[1], winner, exact[2])
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).to(dtype).to(device)
    grads = torch.autograd.grad(y, (x, weight, share), upstream)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    assert y.dtype == act.dtype == grads[0].dtype == dtype and grads[1].dtype == torch.float32
    for got, want in zip((y, *grads), (expected, *wanted), strict=True):
        assert (got.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()
    empty = torch.bincount(winner.flatten(), minlength=case[1]) == 0
    assert (grads[1][empty] == 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("lengths", [[3] * 7, [16] * 2, [1], [0, 40, 0, 1, 70]], ids=str)
def test_sums_of_gathered_rows(lengths, weighted, dtype):
    device, draw = "cuda" if GPU else "cpu", torch.Generator().manual_seed(4)
    pairs, even = sum(lengths), len(set(lengths)) == 1
    source = torch.randn(23, 130, generator=draw).to(device, dtype)
    index = torch.randint(0, 23, (pairs,), generator=draw).to(device)
    weight = torch.randn(pairs, generator=draw).to(device, dtype)
    start = torch.tensor([0, *lengths]).cumsum(0).to(device)
    got = columns_ops.segment_sum(
        source, index, None if even else start, lengths[0] if even else 0, weight if weighted else None
    )
    rows = source.double()[index] * (weight.double()[:, None] if weighted else 1)
    want = torch.stack([part.sum(0) for part in rows.split(lengths)])
    assert got.dtype == dtype and (got.double() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()


def test_every_run_gives_the_same_bits():
    device = "cuda" if GPU else "cpu"
    x, weight, winner, share = (
        t.detach().to(device).to(torch.float32 if t.is_floating_point() else t.dtype)
        for t in problem(70, 5, 2, 64, 64)
    )
    runs = []
    for _ in range(2):
        inputs = [t.clone().requires_grad_() for t in (x, weight, share)]
        y = kernel.columns(inputs[0], inputs[1], winner, inputs[2])[0]
        runs.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
