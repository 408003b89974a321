"""The competition's gradients as written down, against autograd over the plain formula in float64; odd
counts, few winners and many.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.competition import competition as kernel
from braingpt.kernels.competition import gradients, reference


def problem(tokens: int, columns: int, hidden: int = 12, seed: int = 0) -> list[torch.Tensor]:
    """x, the router's weight, the inhibition and the bias, in float64; columns inhibit each other enough to
    change who wins.
    """
    draw = torch.Generator().manual_seed(seed)
    shape = (columns, columns) if columns <= 128 else (2, columns, 8)
    strength = torch.rand(*shape, generator=draw, dtype=torch.float64) * (
        2 / columns if len(shape) == 2 else columns**-0.5
    )
    strength = strength * (1 - torch.eye(columns, dtype=torch.float64)) if len(shape) == 2 else strength
    x, weight = (torch.randn(n, hidden, generator=draw, dtype=torch.float64) for n in (tokens, columns))
    return [x, weight, strength, 0.1 * torch.randn(columns, generator=draw, dtype=torch.float64)]


def plain(x, weight, strength, winner, rounds: int) -> torch.Tensor:
    """(N, A) the winners' drive by the definition: the full matrix of who inhibits whom; only the last
    round's inhibition is learned.
    """
    full = strength if strength.ndim == 2 else strength[0] @ strength[1].T
    full = full - torch.diag(full.diagonal())
    logit = x @ weight.T
    with torch.no_grad():
        excited = logit.sigmoid()
        for _ in range(rounds - 1):
            excited = excited + reference.SETTLING * ((logit - excited @ full).sigmoid() - excited)
    return (logit - excited @ full).gather(1, winner)


def learned(x, weight, strength, bias, rounds: int, active: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The winners and their drive, as the model has it."""
    with torch.no_grad():
        winner, drive, excited, pooled = kernel.compete(
            kernel.logits(x, weight), strength, bias, rounds, active, x.dtype, True
        )
    return winner, gradients.WinnersDrive.apply(
        x, weight, strength, drive, winner, excited, pooled, Pairs.of(winner, len(weight))
    )


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([3, 40, 128, 129, 320]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 20))
def test_values_and_gradients(columns, active, rounds, tokens):
    *inputs, bias = problem(tokens, columns)
    for t in inputs:
        t.requires_grad_()
    winner, drive = learned(*inputs, bias, rounds, active)
    expected = plain(*inputs, winner, rounds)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(drive, expected)
    for got, want in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (drive, expected)), strict=True):
        own = (
            torch.eye(columns, dtype=torch.bool)
            if got.shape == (columns, columns)
            else torch.zeros_like(got, dtype=torch.bool)
        )
        torch.testing.assert_close(got.masked_fill(own, 0), want)


def test_the_routers_gradients_in_16_bits():
    """As on a GPU under autocast: operands rounded, sums in float32."""
    x, weight, _, _ = problem(50, 129)
    winner = torch.rand(50, 129).topk(5).indices
    x, grad = x.bfloat16(), torch.randn(50, 5)
    grad_x, grad_weight = gradients.router_gradients(grad, winner, x, weight.float())
    dense = torch.zeros(50, 129, dtype=torch.float64).scatter(1, winner, grad.double())
    assert grad_x.dtype == torch.bfloat16 and grad_weight.dtype == torch.float32
    for got, want in ((grad_x, dense @ weight), (grad_weight, dense.T @ x.double())):
        assert (got - want).abs().max() < 1e-2 * want.abs().max()


@pytest.mark.parametrize("columns", [40, 300])
def test_every_run_gives_the_same_bits(columns):
    runs = []
    for _ in range(2):
        *inputs, bias = [t.float() for t in problem(30, columns)]
        for t in inputs:
            t.requires_grad_()
        winner, drive = learned(*inputs, bias, 2, 3)
        runs.append([winner, drive, *torch.autograd.grad(drive.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("columns", [115, 320])
def test_operands_of_16_bits_and_the_rest_in_float32(monkeypatch, columns, path):
    """What a GPU does under autocast; on a CPU by the same functions, in Triton's interpreter."""
    if path == "triton":
        pytest.importorskip("triton")
    monkeypatch.setenv("BRAINGPT_KERNELS", f"competition={path}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # in pieces of the tokens on a GPU
    x, weight, strength, bias = (t.float().to(device) for t in problem(64, columns))
    # what operands are rounded to
    inputs = [t.requires_grad_() for t in (x.bfloat16(), weight.bfloat16().float(), strength)]
    winner, drive = learned(*inputs, bias, 1, 4)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    expected = plain(*exact, winner, 1)
    assert drive.dtype == torch.float32 and (drive - expected).abs().max() < 1e-3 * expected.abs().max()
    for got, want in zip(
        *(torch.autograd.grad(y.sum(), i) for y, i in ((drive, inputs), (expected, exact))), strict=True
    ):
        own = torch.eye(columns, device=device) if got.shape == (columns, columns) else 0
        assert (got.double() * (1 - own) - want).abs().max() < 2e-2 * want.abs().max()


def test_only_a_gpu_under_autocast_multiplies_in_16_bits():
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        x, weight = torch.randn(4, 8, device=device).bfloat16(), torch.randn(9, 8, device=device)
        assert kernel.operand_type(x, weight) == torch.float32
        with torch.autocast(device, torch.bfloat16):
            assert kernel.operand_type(x, weight) == (torch.bfloat16 if device == "cuda" else torch.float32)
