from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.optim.schedule import learning_rate
from braingpt.recipes import TrainConfig


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_rises_to_the_rate_and_falls_to_the_final_share(schedule):
    config = TrainConfig(steps=100, warmup=10, lr=2.0, final_lr=0.1, schedule=schedule)
    assert learning_rate(0, config) == pytest.approx(0.2)
    assert learning_rate(9, config) == pytest.approx(2.0)
    assert learning_rate(10, config) == pytest.approx(2.0)
    assert learning_rate(99, config) == pytest.approx(0.2)


def test_shapes_in_the_middle():
    config = {"steps": 101, "warmup": 0, "lr": 1.0, "final_lr": 0.0}
    assert learning_rate(50, TrainConfig(**config, schedule="cosine")) == pytest.approx(0.5)
    assert learning_rate(25, TrainConfig(**config, schedule="cosine")) == pytest.approx(0.8535534)
    assert learning_rate(25, TrainConfig(**config, schedule="linear")) == pytest.approx(0.75)
    assert learning_rate(79, TrainConfig(**config, schedule="wsd")) == 1.0
    assert learning_rate(90, TrainConfig(**config, schedule="wsd")) == pytest.approx(0.5)


schedules = st.sampled_from(["cosine", "linear", "wsd"])


@given(steps=st.integers(1, 300), warmup=st.integers(0, 400), final=st.floats(0, 1), schedule=schedules)
@settings(max_examples=60, deadline=None)
def test_never_above_the_rate_never_below_zero_and_one_peak(steps, warmup, final, schedule):
    config = TrainConfig(steps=steps, warmup=warmup, lr=1.0, final_lr=final, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(steps)]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    top = min(warmup, steps)
    assert all(a <= b for a, b in pairwise(rates[:top]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
