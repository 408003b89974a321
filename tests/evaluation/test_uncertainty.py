import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from braingpt.errors import UserError
from braingpt.evaluation.uncertainty import Figure, compare, compare_all, pooled


def figure(amount, weight=None, **more):
    amount = np.asarray(amount, dtype=float)
    return Figure(
        "task",
        "ko",
        "accuracy",
        amount,
        np.ones_like(amount) if weight is None else np.asarray(weight, dtype=float),
        **more,
    )


def test_the_interval_of_a_share_is_the_textbooks():
    # A quarter of 400: standard error sqrt(p (1 - p) / n).
    hits = np.arange(400) % 4 == 0
    low, high = figure(hits).interval()
    error = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.25 - error, 0.25 + error), abs=0.006)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        weight = draw.integers(20, 60, 80).astype(float)
        low, high = figure(weight * draw.normal(1.5, 0.3, 80), weight).interval()
        covered += low <= 1.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(float, st.integers(2, 30), elements=st.floats(2, 10)))
def test_an_interval_lies_within_what_was_seen_and_nothing_differs_from_itself(amount):
    one = figure(amount)
    low, high = one.interval()
    assert amount.min() - 1e-9 <= low <= high <= amount.max() + 1e-9
    same = compare(one, one)
    assert same.difference == 0 and same.interval[0] <= 0 <= same.interval[1] and same.p == 1


def test_shares_without_a_hit_or_a_miss_are_not_told_as_certain():
    # Of this share, 64 misses come once in forty times.
    exact = 1 - 0.025 ** (1 / 64)
    assert figure([0] * 64, [8] * 64).interval() == pytest.approx((0, exact)) and 0.05 < exact < 0.06
    assert figure([1] * 64).interval() == pytest.approx((1 - exact, 1))
    assert compare(figure([0, 1] * 32), figure([0, 1] * 32)).interval == pytest.approx((-exact, exact))
    loss = Figure("perplexity", "ko", "loss", np.array([5.0, 6.0]), np.array([2.0, 3.0]))
    assert compare(loss, loss).interval == (0, 0)


def test_a_difference_too_small_for_either_interval_is_found_by_pairing():
    draw = np.random.default_rng(0)
    # Windows differ far more than models.
    hard = draw.normal(3, 1, 200)
    first, second = figure(hard), figure(hard - 0.02 + draw.normal(0, 0.05, 200))
    found = compare(first, second)
    assert first.interval()[0] < second.value < first.interval()[1]
    assert found.interval[0] > 0 and found.p < 0.001 and found.difference == pytest.approx(0.02, abs=0.01)


def test_p_is_even_where_nothing_differs_and_mcnemars_where_amounts_are_hits():
    draw = np.random.default_rng(0)
    small = sum(
        compare(figure(draw.normal(0, 1, 30)), figure(draw.normal(0, 1, 30))).p < 0.1 for _ in range(100)
    )
    assert 2 <= small <= 20
    hits = compare(figure([1] * 12 + [0] * 3 + [1] * 40), figure([0] * 12 + [1] * 3 + [1] * 40))
    # Two-sided binomial of 12 out of 15.
    exact = 2 * sum(1 for n in range(2**15) if n.bit_count() >= 12) / 2**15
    assert hits.p == pytest.approx(exact, abs=0.01)


def test_the_pool_keeps_its_strata():
    parts = [figure(np.full(50, 1.0)), figure(np.full(5, 3.0))]
    pool = pooled(parts)
    assert pool.value == pytest.approx(65 / 55) and pool.language == "all"
    # No stratum varies inside, so neither does the pool.
    assert pool.interval() == pytest.approx((65 / 55, 65 / 55))
    # How a stratum of one unit varies is not known.
    assert pooled([figure([1.0]), figure([3.0])]).interval() is None


def test_other_units_are_refused_and_namesakes_found():
    with pytest.raises(UserError, match="same text"):
        compare(figure([1, 2, 3]), figure([1, 2]))
    with pytest.raises(UserError, match="same text"):
        compare(figure([1, 2], [5, 6]), figure([1, 2], [5, 7]))
    assert [c.difference for c in compare_all([figure([1, 1]), figure([])], [figure([0, 1])])] == [0.5]
    assert figure([5]).interval() is None and figure([], []).value is None
