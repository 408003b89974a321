"""The chunked delta rule against the recurrence in float64, in value and gradient, over odd shapes; and that
it corrects itself.
"""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels import delta_rule
from tests.kernels.compare import normal, same_gradients


def random_inputs(batch: int, length: int, heads: int, keys: int, values: int) -> tuple[torch.Tensor, ...]:
    q, k = (F.normalize(normal(seed, batch, length, heads, keys), dim=-1) for seed in (0, 1))
    v, beta = normal(2, batch, length, heads, values), torch.sigmoid(normal(3, batch, length, heads))
    decay = -F.softplus(normal(4, batch, length, heads))
    return tuple(t.requires_grad_() for t in (q, k, v, beta, decay, normal(5, batch, heads, keys, values)))


@settings(max_examples=30, deadline=None)
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
def test_chunked_equals_the_recurrence(batch, length, heads, keys, values, chunk, documents, data):
    inputs, run = random_inputs(batch, length, heads, keys, values), None
    if documents:
        starts = torch.tensor(
            data.draw(st.lists(st.booleans(), min_size=batch * length, max_size=batch * length))
        )
        run = starts.view(batch, length).long().cumsum(1)
    y, last = delta_rule.chunked(*inputs, run, chunk=chunk)
    y_ref, last_ref = delta_rule.recurrent(*inputs, run)
    same_gradients(
        torch.cat([y.flatten(), last.flatten()]), torch.cat([y_ref.flatten(), last_ref.flatten()]), inputs
    )


def test_float32_and_bfloat16_stay_near_float64():
    inputs = [t.detach() for t in random_inputs(2, 200, 2, 32, 16)]
    y_ref, last_ref = delta_rule.recurrent(*inputs)
    y, last = delta_rule.chunked(*(t.float() for t in inputs))
    torch.testing.assert_close(y.double(), y_ref, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.double(), last_ref, rtol=1e-4, atol=1e-5)
    # only what is handed in is rounded: the state stays wide
    with torch.autocast("cpu", torch.bfloat16):
        y, last = delta_rule.chunked(*(t.bfloat16() for t in inputs[:3]), *(t.float() for t in inputs[3:]))
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    torch.testing.assert_close(last.double(), last_ref, rtol=0.05, atol=0.05)


def test_strong_decay_and_repeated_keys_stay_finite():
    q, v = torch.randn(1, 256, 2, 8), torch.randn(1, 256, 2, 4)
    k = F.normalize(torch.ones(1, 256, 2, 8), dim=-1)
    decay = torch.full((1, 256, 2), -50.0).requires_grad_()
    y, state = delta_rule.chunked(q, k, v, torch.ones(1, 256, 2), decay, torch.zeros(1, 2, 8, 4))
    (y.sum() + state.sum()).backward()
    assert y.isfinite().all() and decay.grad.isfinite().all()


def test_a_new_value_replaces_the_old_one():
    """Orthogonal keys are kept apart exactly, and what is bound again is bound to the new value alone."""
    keys, values = torch.eye(4, dtype=torch.float64), normal(0, 6, 3)
    order = [0, 1, 2, 3, 1, 0]
    k, v = keys[order][None, :, None], values[None, :, None]
    one, zero = torch.ones(1, 6, 1, dtype=torch.float64), torch.zeros(1, 6, 1, dtype=torch.float64)
    _, state = delta_rule.chunked(k, k, v, one, zero, torch.zeros(1, 1, 4, 3, dtype=torch.float64), chunk=4)
    torch.testing.assert_close(state[0, 0], values[[5, 4, 2, 3]])
