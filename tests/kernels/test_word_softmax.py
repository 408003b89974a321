"""Words of a class by every backend, against the definition in float64, by value and gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import dispatch
from braingpt.kernels import word_softmax as kernel
from braingpt.kernels.columns.mkl_products import mkl_unavailable_reason
from tests.kernels.compare import normal, same_gradients

GPU = torch.cuda.is_available()
# Largest error over the largest value, of results in the type.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}

# tokens, classes that have tokens, classes, words, padding, hidden
CASES = [
    (0, 1, 3, 16, 0, 8),
    (1, 1, 1, 5, 2, 3),
    # empty classes, and more words and hidden channels than whole blocks hold
    (40, 3, 9, 19, 7, 70),
    # one class has all tokens, for more than a tile of rows
    (70, 1, 2, 130, 0, 33),
    (50, 6, 6, 16, 15, 48),
]


def problem(tokens, used, classes, words, padding, hidden):
    """Inputs, weights, classes and words of an odd shape; the last classes have tokens, the first none."""
    draw = torch.Generator().manual_seed(tokens)
    x, weight = normal(0, tokens, hidden).requires_grad_(), normal(1, classes, words, hidden)
    class_N = classes - 1 - torch.randint(used, (tokens,), generator=draw)
    word_N = torch.randint(words, (tokens,), generator=draw)
    word_N = torch.where(class_N == classes - 1, word_N % (words - padding), word_N)
    return x, (weight / hidden**0.5).requires_grad_(), class_N, word_N, padding


def definition(x, weight, class_N, word_N, padding):
    """Token by token, with the words that exist."""
    results = []
    for row, group, word in zip(x, class_N.tolist(), word_N.tolist(), strict=True):
        words = weight[group, : weight.shape[1] - padding] if group == len(weight) - 1 else weight[group]
        results.append((words @ row).log_softmax(0)[word])
    return torch.stack(results) if results else x.sum(1) * weight.sum()


@pytest.fixture(params=["torch", "per class", "MKL batch"])
def backend(request, monkeypatch):
    monkeypatch.setenv("BRAINGPT_KERNELS", f"word_softmax={request.param}")
    return request.param


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_equals_the_definition(case, backend):
    x, weight, *rest = problem(*case)
    same_gradients(kernel.word_log_probs(x, weight, *rest), definition(x, weight, *rest), (x, weight))


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 20), st.integers(1, 9), st.data())
def test_grouped_products_equal_the_reference(tokens, classes, words, hidden, data):
    used, padding = data.draw(st.integers(1, classes)), data.draw(st.integers(0, words - 1))
    x, weight, *rest = problem(tokens, used, classes, words, padding, hidden)
    log_N = kernel.word_log_probs(x, weight, *rest)
    same_gradients(log_N, kernel.reference(x, weight, *rest), (x, weight))


def test_words_of_a_class_sum_to_one_and_absent_ones_learn_nothing(backend):
    x, weight, class_N, _, padding = problem(4, 1, 3, 16, 5, 8)
    total = sum(
        kernel.word_log_probs(x, weight, class_N, torch.full_like(class_N, word), padding).exp()
        for word in range(16 - padding)
    )
    torch.testing.assert_close(total, torch.ones_like(total))
    (grad,) = torch.autograd.grad(
        kernel.word_log_probs(x, weight, class_N, class_N * 0, padding).sum(), weight
    )
    assert (grad[-1, 16 - padding :] == 0).all() and (grad[-1, : 16 - padding] != 0).all()
    assert (grad[:-1] == 0).all()


def test_two_losses_share_weights_and_each_token_has_its_weight():
    """A backward pass may come twice, and upstream gradients may differ from token to token."""
    x, weight, *rest = problem(*CASES[2])
    log_N = kernel.word_log_probs(x, weight, *rest)
    first = torch.autograd.grad(log_N, (x, weight), torch.ones_like(log_N), retain_graph=True)
    second = torch.autograd.grad(log_N, (x, weight), torch.arange(40.0).double())
    assert torch.allclose(second[0], first[0] * torch.arange(40.0).double()[:, None])


@pytest.mark.parametrize("backend", ["torch", "per class", "MKL batch", "torch.grouped_mm", "triton"])
@pytest.mark.parametrize("case", CASES[1:], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])
def test_low_precision(case, dtype, backend, monkeypatch):
    """As in training: weights stay in float32; log-probabilities are in float32 at least."""
    if backend == "triton":
        pytest.importorskip("triton")
    if backend == "torch.grouped_mm" and dtype != torch.bfloat16:
        pytest.skip("takes bfloat16 on a GPU")
    monkeypatch.setenv("BRAINGPT_KERNELS", f"word_softmax={backend}")
    device = "cuda" if GPU else "cpu"
    x, weight, class_N, word_N, padding = problem(*case)
    x = x.detach().to(device, dtype).requires_grad_()
    weight = weight.detach().bfloat16().float().to(device).requires_grad_()
    class_N, word_N = class_N.to(device), word_N.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        cast = weight.to(dtype) if backend == "torch" else weight
        log_N = kernel.word_log_probs(x, cast, class_N, word_N, padding)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    want_N = definition(*exact, class_N, word_N, padding)
    upstream = torch.randn(len(x), generator=torch.Generator().manual_seed(9)).to(device)
    grads = torch.autograd.grad(log_N, (x, weight), upstream)
    wanted = torch.autograd.grad(want_N, exact, upstream.double())
    assert log_N.dtype == grads[1].dtype == torch.float32 and grads[0].dtype == dtype
    for got, want in zip((log_N, *grads), (want_N, *wanted), strict=True):
        assert (got.double() - want).abs().max() <= TOLERANCE[dtype] * max(1, want.abs().max())


@pytest.mark.parametrize("backend", ["per class", "MKL batch", "triton"])
def test_every_run_gives_the_same_bits(backend, monkeypatch):
    if backend == "triton":
        pytest.importorskip("triton")
    monkeypatch.setenv("BRAINGPT_KERNELS", f"word_softmax={backend}")
    device = "cuda" if GPU else "cpu"
    x, weight, class_N, word_N, padding = problem(*CASES[2])
    runs = []
    for _ in range(2):
        inputs = [t.detach().float().to(device).requires_grad_() for t in (x, weight)]
        log_N = kernel.word_log_probs(*inputs, class_N.to(device), word_N.to(device), padding)
        runs.append([log_N, *torch.autograd.grad(log_N.square().sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_the_products_of_triton_read_transposed_views_in_place():
    products = pytest.importorskip("braingpt.kernels.columns.triton_products")
    device, sizes = "cuda" if GPU else "cpu", [0, 3, 0, 40]
    start = torch.tensor([0, *sizes]).cumsum(0).to(device)
    x, matrix = normal(0, 43, 37).float().to(device), normal(1, 4, 37, 21).float().to(device)
    want = torch.cat([part @ m for part, m in zip(x.split(sizes), matrix, strict=True)])
    multiply = products.TritonProducts(start)
    for view in (matrix, matrix.mT.contiguous().mT):
        torch.testing.assert_close(multiply.times(x, view), want)
    out = torch.full((4, 2, 37, 21), torch.nan, device=device)
    multiply.outer(x, want, out[:, 1])
    sums = torch.stack([a.T @ b for a, b in zip(x.split(sizes), want.split(sizes), strict=True)])
    torch.testing.assert_close(out[:, 1], sums)
    assert out[:, 0].isnan().all()


def test_triton_comes_first_and_says_what_it_needs():
    first = dispatch.backends("word_softmax")[0]
    assert first.name == "triton"
    if not GPU:
        assert first.unavailable_reason() == "needs a GPU"
        best = "per class" if mkl_unavailable_reason() else "MKL batch"
        assert dispatch.select("word_softmax", normal(0, 1)) == best
