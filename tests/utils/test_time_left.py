"""The time left follows the recent pace, with the pauses that were usual."""

import pytest

from braingpt.utils.time_left import WINDOW, TimeLeft


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def follow(
    left: TimeLeft, clock: Clock, steps: int, seconds: float, pause_every: int = 0, pause: float = 0.0
):
    for step in range(1, steps + 1):
        clock.now += seconds + (pause if pause_every and step % pause_every == 0 else 0.0)
        left.update(left.done + 1)


def test_nothing_is_known_before_the_first_report():
    assert TimeLeft(10).seconds is None


def test_a_steady_pace():
    clock = Clock()
    left = TimeLeft(100, clock=clock)
    follow(left, clock, 40, 0.5)
    assert left.seconds == pytest.approx(30)


def test_what_was_done_before_is_not_this_pace():
    clock = Clock()
    left = TimeLeft(100, done=90, clock=clock)
    follow(left, clock, 5, 2.0)
    assert left.seconds == pytest.approx(10)


@pytest.mark.parametrize(("before", "after"), [(0.2, 1.0), (1.0, 0.2)])
def test_a_change_of_load_is_followed_within_the_window(before, after):
    clock = Clock()
    left = TimeLeft(3000, clock=clock)
    follow(left, clock, round(100 / before), before)
    changed = clock.now
    follow(left, clock, round(WINDOW * 1.5 / after), after)
    assert clock.now - changed <= 2 * WINDOW
    assert left.seconds == pytest.approx((3000 - left.done) * after, rel=0.2)


def test_pauses_count_as_often_as_they_were():
    """Each hundredth step is followed by a validation of ten seconds: a third of the time."""
    clock = Clock()
    left = TimeLeft(10_000, clock=clock)
    follow(left, clock, 1050, 0.2, pause_every=100, pause=10.0)
    truth = (10_000 - 1050) * 0.2 + 90 * 10
    assert left.seconds == pytest.approx(truth, rel=0.2)


def test_a_single_pause_does_not_move_the_pace():
    clock = Clock()
    left = TimeLeft(1000, clock=clock)
    follow(left, clock, 100, 0.1)
    calm = left.seconds
    follow(left, clock, 1, 60.0)
    assert left.seconds == pytest.approx(calm, rel=0.05)


def test_a_rewind_counts_the_steps_again():
    clock = Clock()
    left = TimeLeft(100, clock=clock)
    follow(left, clock, 50, 1.0)
    left.update(20)
    follow(left, clock, 5, 1.0)
    assert left.done == 25 and left.seconds == pytest.approx(75, rel=0.01)
