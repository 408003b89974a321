"""Training side by side: for equal tokens, and for equal time on each contender's own clock.

Contenders take turns, so that a slow spell of the machine hits all alike; validation is not on any
contender's clock.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from braingpt.bench.clock import Series
from braingpt.bench.contender import Contender, spikes
from braingpt.bench.results import OnProgress

# Parts of a training, each of which ends with a validation.
PARTS = 5
# Turns in a part of equal time, and the most seconds of a turn.
TURNS, LONGEST_TURN = 10, 10.0
# Keys of a step's record that become curves.
CURVES = ("tokens", "seconds", "loss", "grad_norm")
# Receives the figures so far.
Keep = Callable[[dict[str, Any]], None]


class Course:
    """The record of one contender's training."""

    def __init__(self, contender: Contender, windows: int) -> None:
        self.contender, self.windows = contender, windows
        self.speeds, self.validations = Series(), []

    def validate(self) -> None:
        """Score the validation text with the model as it is now."""
        trainer = self.contender.trainer
        scores = self.contender.validate(self.windows)
        scores["scored_tokens"] = scores.pop("tokens")
        self.validations.append(
            {"step": trainer.step, "tokens": trainer.tokens, "seconds": trainer.seconds} | scores
        )

    def as_dict(self) -> dict[str, Any]:
        """Curves step by step (None where a loss was not finite), validations, stability, speed by rounds.

        Seconds are those of the contender's own clock.
        """
        trainer, records = self.contender.trainer, self.contender.recorder.steps
        return {
            "seed": self.contender.recipe.train.seed,
            "steps": trainer.step,
            "tokens": trainer.tokens,
            "seconds": trainer.seconds,
            "curve": {key: [_six_digits(record[key]) for record in records] for key in CURVES},
            "validations": self.validations,
            "stability": stability([record["grad_norm"] for record in records], self.contender.losses),
            "lost": self.contender.lost,
            "tokens_per_second": self.speeds.as_dict() if self.speeds.rounds else None,
        }


def _six_digits(value: float | None) -> float | None:
    """The value rounded, because curves are long."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def stability(norms: Sequence[float | None], losses: Sequence[float]) -> dict[str, Any]:
    """Loss spikes, values that were not finite, and the tail of the gradient norms.

    The tail says how far the largest hundredth is above the median. The first tenth of the steps is left out
    of the norms: they fall while the learning rate rises, in every run.

    Args:
        norms: Gradient norm of each step before clipping; None where not finite.
        losses: Loss of each step; NaN where not finite.
    """
    finite = sorted(norm for norm in norms[len(norms) // 10 :] if norm is not None)
    figures = {
        "spikes": spikes(losses),
        "not_finite": sum(not math.isfinite(loss) for loss in losses) + sum(norm is None for norm in norms),
    }
    if not finite:
        return figures | {"norm_median": None, "norm_p99": None, "norm_max": None, "norm_tail": None}
    middle, high = statistics.median(finite), finite[min(len(finite) - 1, math.ceil(0.99 * len(finite)) - 1)]
    return figures | {
        "norm_median": middle,
        "norm_p99": high,
        "norm_max": finite[-1],
        "norm_tail": high / middle if middle else None,
    }


def equal_tokens(
    contenders: dict[str, Contender],
    steps: int,
    rounds: int,
    windows: int,
    on_progress: OnProgress,
    keep: Keep,
) -> dict[str, Any]:
    """Train every contender for the same steps on the same batches.

    The first round, about a tenth of the steps, is not among the speeds.

    Args:
        contenders: The contenders by name.
        steps: Optimizer steps of each.
        rounds: Rounds of turns, at least.
        windows: Validation windows of each language.
        on_progress: Receives the share done and what is being done.
        keep: Receives the figures after each validation.

    Returns:
        The course of each contender.
    """
    courses = {name: Course(contender, windows) for name, contender in contenders.items()}
    parts = portions(steps, max(rounds, PARTS))
    every = math.ceil(len(parts) / PARTS)
    for number, count in enumerate(parts):
        for place, (name, course) in enumerate(courses.items()):
            on_progress(
                (number + place / len(courses)) / len(parts),
                f"training {name}, step {course.contender.trainer.step}/{steps}",
            )
            speed = course.contender.train(count)
            if number > 0 and speed is not None:
                course.speeds.rounds.append(speed)
        if (number + 1) % every == 0 or number + 1 == len(parts):
            _validate(courses, keep)
    return {name: course.as_dict() for name, course in courses.items()}


def equal_time(
    contenders: dict[str, Contender], limit: float, windows: int, on_progress: OnProgress, keep: Keep
) -> dict[str, Any]:
    """Train every contender for `limit` seconds of its own clock, which its learning rate follows.

    Args:
        contenders: The contenders by name.
        limit: Seconds of training.
        windows: Validation windows of each language.
        on_progress: Receives the share done and what is being done.
        keep: Receives the figures after each validation.

    Returns:
        The course of each contender.
    """
    courses = {name: Course(contender, windows) for name, contender in contenders.items()}
    turn = min(LONGEST_TURN, limit / PARTS / TURNS)
    for part in range(1, PARTS + 1):
        end = limit * part / PARTS
        while any(course.contender.trainer.seconds < end for course in courses.values()):
            for name, course in courses.items():
                seconds = course.contender.trainer.seconds
                if seconds < end:
                    on_progress(
                        min(c.contender.trainer.seconds for c in courses.values()) / limit,
                        f"training {name}, {seconds:.0f} of {limit:.0f} s",
                    )
                    course.contender.train_until(min(end, seconds + turn), limit)
        _validate(courses, keep)
    return {name: course.as_dict() for name, course in courses.items()}


def _validate(courses: dict[str, Course], keep: Keep) -> None:
    for course in courses.values():
        course.validate()
    keep({name: course.as_dict() for name, course in courses.items()})


def portions(steps: int, rounds: int) -> list[int]:
    """Divide `steps` into a warm-up (about a tenth, at least one) and rounds, equal up to one step."""
    warm = max(1, steps // 10)
    rounds = min(rounds, steps - warm)
    each, longer = divmod(steps - warm, rounds)
    return [warm] + [each + (number < longer) for number in range(rounds)]
