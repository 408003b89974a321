"""The chunked scan against the recurrence in float64, in value and gradient."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels.scan.chunked import chunked
from braingpt.kernels.scan.reference import recurrent
from tests.kernels.compare import normal, same_gradients

few = settings(max_examples=20, deadline=None)


@few
@given(
    st.integers(1, 3),
    st.integers(1, 37),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 16),
    st.booleans(),
    st.data(),
)
def test_chunked_scan_equals_the_recurrence(batch, length, heads, width, state, chunk, documents, data):
    x = normal(0, batch, length, heads, width).requires_grad_()
    dt = F.softplus(normal(1, batch, length, heads)).requires_grad_()
    a = (-torch.exp(normal(2, heads))).requires_grad_()
    b, c = normal(3, batch, length, state).requires_grad_(), normal(4, batch, length, state).requires_grad_()
    initial = normal(5, batch, heads, state, width).requires_grad_()
    run = None
    if documents:
        starts = torch.tensor(
            data.draw(st.lists(st.booleans(), min_size=batch * length, max_size=batch * length))
        )
        run = starts.view(batch, length).long().cumsum(1)
    inputs = (x, dt, a, b, c, initial)
    y, last = chunked(*inputs, run, chunk=chunk)
    y_ref, last_ref = recurrent(*inputs, run)
    same_gradients(
        torch.cat([y.flatten(), last.flatten()]), torch.cat([y_ref.flatten(), last_ref.flatten()]), inputs
    )


def test_scan_of_strong_decay_stays_finite():
    x, b, c = (torch.randn(1, 256, *rest) for rest in ((2, 8), (4,), (4,)))
    dt = torch.full((1, 256, 2), 40.0).requires_grad_()
    y, state = chunked(x, dt, torch.tensor([-16.0, -1e-3]), b, c, torch.zeros(1, 2, 4, 8))
    (y.sum() + state.sum()).backward()
    assert y.isfinite().all() and dt.grad.isfinite().all()
