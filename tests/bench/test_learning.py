"""How a training is cut into portions, and what counts as a spike or an instability of the gradients."""

import math

from hypothesis import given
from hypothesis import settings as few
from hypothesis import strategies as st

from braingpt.bench.contender import spikes
from braingpt.bench.learning import portions, stability


@few(max_examples=60, deadline=None)
@given(st.integers(2, 500), st.integers(1, 12))
def test_portions_hold_every_step_and_differ_by_one(steps, rounds):
    warm, *rest = portions(steps, rounds)
    assert warm + sum(rest) == steps and warm >= 1 and 1 <= len(rest) <= rounds
    assert min(rest) >= 1 and max(rest) - min(rest) <= 1


def test_spikes_are_jumps_not_noise():
    calm = [5 + 0.05 * (-1) ** step - 0.01 * step for step in range(60)]
    assert spikes(calm) == 0
    assert spikes([*calm[:30], 9.0, *calm[30:]]) == 1
    assert spikes([*calm[:30], math.nan, *calm[30:]]) == 1
    # Too early to say.
    assert spikes([10.0, 4.0, 11.0]) == 0


def test_the_tail_of_gradient_norms():
    norms = [1.0] * 195 + [8.0] * 5
    found = stability([100.0] * 20 + norms[20:] + [None], [5.0] * 200 + [math.nan])
    assert (
        found["norm_median"] == 1.0
        and found["norm_tail"] == 8.0
        and found["not_finite"] == 2
        and found["spikes"] == 1
    )
    assert stability([None], [5.0])["norm_tail"] is None
