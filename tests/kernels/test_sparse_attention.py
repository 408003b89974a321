"""Magnitude attention: the definition row by row, and both fast paths against it in value and gradient, ties
and documents included.
"""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from braingpt.kernels import dispatch
from braingpt.kernels.sparse_attention import blocks
from braingpt.kernels.sparse_attention.reference import reference
from braingpt.kernels.sparse_attention.sparse_attention import magnitude_attention

GPU = torch.cuda.is_available()
few = settings(max_examples=20, deadline=None)


def normal(seed: int, *shape: int, dtype=torch.float64, whole: bool = False) -> torch.Tensor:
    """Whole numbers make scores that tie and that every type holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (
        torch.randint(-2, 3, shape, generator=generator)
        if whole
        else torch.randn(*shape, generator=generator)
    )
    return drawn.to(dtype).requires_grad_()


def packed(seed: int, batch: int, keys: int) -> torch.Tensor:
    """Documents of a few tokens with padding between and inside, numbered as by `layout.documents`."""
    generator = torch.Generator().manual_seed(seed)
    run = (torch.rand(batch, keys, generator=generator) < 0.1).long().cumsum(1)
    return torch.where(torch.rand(batch, keys, generator=generator) < 0.2, -1 - torch.arange(keys), run)


def agree(path, tensors, document, keep, floor, tolerance) -> None:
    """Values, keys kept and gradients are the float64 reference's, to a share of the largest entry."""
    exact = [t.detach().double().requires_grad_() for t in tensors]
    (y, kept), (want, want_kept) = (
        path(*tensors, document, keep, floor),
        reference(*exact, document, keep, floor),
    )
    assert y.dtype == tensors[0].dtype and torch.equal(kept, want_kept) and not kept.requires_grad
    upstream = normal(99, *y.shape).detach().to(y.dtype).to(y.device)
    got = torch.autograd.grad(y, tensors, upstream)
    for one, other in zip(
        (y, *got), (want, *torch.autograd.grad(want, exact, upstream.double())), strict=True
    ):
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@few
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.01, 1.0),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 1000),
)
def test_the_reference_row_by_row(length, past, keep, floor, documents, seed):
    keys = length + past
    q, k, v = (normal(seed + i, 1, 2, n, 4) for i, n in enumerate((length, keys, keys)))
    document = packed(seed, 1, keys) if documents else None
    y, kept = reference(q, k, v, document, keep, floor)
    for t in range(past, keys):
        own = [s for s in range(t + 1) if document is None or document[0, s] == document[0, t]]
        quota = min(len(own), max(floor, int(-(-len(own) * keep // 1))))
        for head in range(2):
            scores = k[0, head, own] @ q[0, head, t - past] / 2
            chosen = scores.abs().topk(quota).indices
            torch.testing.assert_close(
                y[0, head, t - past], torch.softmax(scores[chosen], 0) @ v[0, head, own][chosen]
            )
        assert kept[0, :, t - past].tolist() == [quota, quota]


@few
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 45),
    past=st.integers(0, 20),
    channels=st.integers(1, 9),
    keep=st.floats(0.01, 1.0),
    floor=st.integers(1, 5),
    documents=st.booleans(),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_blocks_equal_the_reference(batch, heads, length, past, channels, keep, floor, documents, ties, seed):
    keys = length + past
    # Cut out of wider tensors, as the mixer and the cache hand them over.
    wide = [
        normal(seed + i, batch, n, 2 * heads, channels, whole=ties)
        for i, n in enumerate((length, keys, keys))
    ]
    q, k, v = (t.transpose(1, 2)[:, heads:] for t in wide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "ROWS", 16)
        patch.setattr(blocks, "SCORES", 700)
        agree(
            blocks.magnitude_blocks,
            [q, k, v],
            packed(seed, batch, keys) if documents else None,
            keep,
            floor,
            1e-10,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "case",
    # batch, heads, queries, keys, channels, keep, floor, documents, ties
    [
        (1, 2, 37, 37, 8, 0.05, 4, False, False),
        (2, 1, 20, 50, 20, 0.1, 1, True, False),
        (1, 1, 1, 70, 4, 0.05, 4, True, False),
        (1, 1, 70, 70, 16, 0.3, 2, True, True),
        (2, 1, 33, 40, 16, 0.2, 3, False, True),
    ],
    ids=str,
)
def test_triton_equals_the_reference(case, dtype):
    triton_path = pytest.importorskip("braingpt.kernels.sparse_attention.triton_ops").magnitude_triton
    batch, heads, length, keys, channels, keep, floor, documents, ties = case
    device = "cuda" if GPU else "cpu"
    shapes = [(batch, n, heads, channels) for n in (length, keys, keys)]
    tensors = [
        normal(i, *shape, dtype=dtype, whole=ties).detach().to(device).transpose(1, 2).requires_grad_()
        for i, shape in enumerate(shapes)
    ]
    document = packed(0, batch, keys).to(device) if documents else None
    agree(triton_path, tensors, document, keep, floor, 1e-5 if dtype == torch.float32 else 2e-2)


class _Largest(TorchDispatchMode):
    """Remembers how many entries the largest tensor has that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(
            [
                self.numel,
                *(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)),
            ]
        )
        return out


def test_nothing_of_length_times_length_is_held():
    length = 2048
    q, k, v = (normal(i, 1, 1, length, 8, dtype=torch.float32) for i in range(3))
    most = {}
    for path in (magnitude_attention, reference):
        with _Largest() as seen:
            y, _ = path(q, k, v, None, 0.05, 4)
            y.sum().backward()
        most[path] = seen.numel
    assert most[magnitude_attention] < length * length / 8 and most[reference] >= length * length
    # NumPy's share is of the same blocks: the largest array of all is one block's scores.
    assert blocks.ROWS * length < length * length / 8


def test_what_runs_where(monkeypatch):
    q = torch.zeros(1, 1, 3, 4)
    assert dispatch.select("magnitude_attention", q) == "blocks"
    monkeypatch.setenv("BRAINGPT_KERNELS", "magnitude_attention=torch")
    assert dispatch.select("magnitude_attention", q) == "torch"


def test_rows_that_may_read_fewer_keys_than_others_keep():
    """Left padding of several lengths in one block: places not allowed fill up the short rows, and by luck as
    many as the long ones lack.
    """
    pad = -1 - torch.arange(5)
    document = torch.stack([torch.where(torch.arange(5) < padding, pad, 0) for padding in (4, 1, 0)])
    agree(blocks.magnitude_blocks, [normal(i, 3, 2, 5, 4) for i in range(3)], document, 0.5, 4, 1e-10)


def test_a_step_over_few_keys_does_without_blocks(monkeypatch):
    monkeypatch.setitem(
        importlib.import_module("braingpt.kernels.sparse_attention.sparse_attention")._IMPLEMENTATIONS,
        "blocks",
        lambda *_: pytest.fail("blocks"),
    )
    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 4, 2048, 8)
    with torch.no_grad():
        magnitude_attention(k[:, :, :4], k[:, :, :512], k[:, :, :512], None, 0.05, 4)
        magnitude_attention(q, k, k, None, 0.05, 4)
        for keys, environment in ((torch.randn(1, 4, 2049, 8), ""), (k, "magnitude_attention=blocks")):
            monkeypatch.setenv("BRAINGPT_KERNELS", environment)
            with pytest.raises(pytest.fail.Exception):
                magnitude_attention(q, keys, keys, None, 0.05, 4)
