"""The competition's Triton kernels against the plain formula in float64; on a GPU, else in Triton's
interpreter.
"""

import pytest
import torch

from braingpt.kernels.competition import competition as kernel
from tests.kernels.test_competition import learned, plain, problem

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def triton_is_asked_for(monkeypatch):
    monkeypatch.setenv("BRAINGPT_KERNELS", "competition=triton")


# tokens, columns, winners, rounds
CASES = [
    (5, 3, 1, 1),
    (40, 3, 3, 3),
    (33, 115, 4, 1),
    (35, 115, 16, 2),
    (3, 128, 5, 4),
    # more winners than groups of columns
    (33, 129, 16, 1),
    (5, 129, 1, 3),
    (35, 320, 4, 2),
    (5, 320, 11, 1),
    (3, 2060, 16, 1),
    (2, 2060, 3, 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case):
    tokens, columns, active, rounds = case
    *inputs, bias = (t.float().to(DEVICE) for t in problem(tokens, columns))
    assert kernel._triton_takes(torch.empty(1, columns, device=DEVICE), active)
    inputs = [t.requires_grad_() for t in inputs]
    winner, drive = learned(*inputs, bias, rounds, active)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    all_columns = torch.arange(columns, device=DEVICE).expand(tokens, columns)
    best = (plain(*exact, all_columns, rounds).detach() + bias).topk(active).indices
    assert winner.dtype == torch.int64 and torch.equal(winner, best)
    expected = plain(*exact, winner, rounds)
    upstream = torch.randn(tokens, active, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    assert (drive - expected).abs().max() < 2e-5 * expected.abs().max()
    grads, wanted = (
        torch.autograd.grad(drive, inputs, upstream),
        torch.autograd.grad(expected, exact, upstream.double()),
    )
    for got, want in zip(grads, wanted, strict=True):
        own = torch.eye(columns, device=DEVICE) if got.shape == (columns, columns) else 0
        assert (got * (1 - own) - want).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.parametrize("columns", [40, 300])
def test_among_equals_the_lower_index_wins(columns):
    logit = torch.zeros(4, columns, device=DEVICE)
    logit[1, [7, 31, 33]] = 1.0
    logit[2, ::2] = 1.0
    # each in a group of its own; what is no column is not the strongest of these
    spread = list(range(3, columns, 16 if columns > 128 else 7))[:5]
    logit[3] = -5.0
    logit[3, spread] = -4.0
    strength = torch.zeros((columns, columns) if columns <= 128 else (2, columns, 8), device=DEVICE)
    winner, drive, _, _ = kernel.compete(
        logit, strength, torch.zeros(columns, device=DEVICE), 1, 5, torch.float32, False
    )
    assert winner.tolist() == [[0, 1, 2, 3, 4], [7, 31, 33, 0, 1], [0, 2, 4, 6, 8], spread]
    assert torch.equal(drive, logit.gather(1, winner))


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("columns", [40, 300])
def test_what_is_no_number_shows(columns):
    """A broken token's winners are columns there are, each once, and their drive is no number; its
    neighbour's are as ever.
    """
    logit = torch.randn(3, columns, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    logit[0], logit[2] = float("nan"), float("-inf")
    strength = torch.full((columns, columns) if columns <= 128 else (2, columns, 8), 0.01, device=DEVICE)
    winner, drive, _, _ = kernel.compete(
        logit, strength, torch.zeros(columns, device=DEVICE), 1, 4, torch.float32, False
    )
    assert all(len(set(row)) == 4 and min(row) >= 0 and max(row) < columns for row in winner.tolist())
    assert drive[0].isnan().all() and drive[1].isfinite().all() and (drive[2] == float("-inf")).all()


def test_more_than_the_kernels_hold_falls_back():
    assert not kernel._triton_takes(torch.empty(1, kernel.TRITON_COLUMNS + 1, device=DEVICE), 1)
    assert not kernel._triton_takes(torch.empty(1, 300, device=DEVICE), kernel.TRITON_WINNERS + 1)


@pytest.mark.parametrize("columns", [40, 300])
def test_what_is_kept_is_rounded_only_when_kept(columns):
    *_, strength, bias = (t.float().to(DEVICE) for t in problem(9, columns))
    logit = torch.randn(9, columns, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    exact, kept = (
        kernel.compete(logit, strength, bias, 2, 3, dtype, True) for dtype in (torch.float32, torch.bfloat16)
    )
    assert kept[2].dtype == torch.bfloat16 and exact[2].dtype == kept[1].dtype == torch.float32
    # Triton's interpreter cuts off where a GPU rounds
    torch.testing.assert_close(kept[2].float(), exact[2], rtol=2**-7, atol=0)
    # a GPU's products are TF32 there
    torch.testing.assert_close(kept[1], exact[1], rtol=0, atol=2e-3)
    assert kernel.compete(logit, strength, bias, 2, 3, torch.float32, False)[2].numel() == 0


@pytest.mark.parametrize("columns", [40, 300])
def test_the_operator_does_what_it_tells_a_compiler(columns):
    *_, strength, bias = (t.float().to(DEVICE) for t in problem(9, columns))
    logit = torch.randn(9, columns, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    for kept, learning in ((torch.bfloat16, True), (torch.float32, False)):
        torch.library.opcheck(kernel._compete, (logit, strength, bias, 2, 3, kept, learning))


@pytest.mark.parametrize(("tokens", "columns", "hidden"), [(1, 3, 16), (130, 115, 70), (40, 300, 64)])
def test_the_routers_product(tokens, columns, hidden):
    draw = torch.Generator().manual_seed(5)
    x, weight = (
        torch.randn(rows, hidden, generator=draw).bfloat16().to(DEVICE) for rows in (tokens, columns)
    )
    logit = kernel.logits(x, weight.float())
    exact = x.double() @ weight.double().T
    assert logit.dtype == torch.float32 and (logit - exact).abs().max() < 1e-5 * exact.abs().max()
