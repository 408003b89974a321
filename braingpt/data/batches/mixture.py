"""How languages share the rows of a run: `data.mixture` of a recipe, checked, and turned into weights.

proportional                     as many rows as a language has tokens balanced                         the
same for every language temperature                      p ~ n^alpha of its tokens n, alpha 0.3 (Conneau et
al. 2020, section 3); {temperature: 0.5} names another {ko: 2, en: 1}                   weights; languages
that are not named are left out
- {until: 0.7, mixture: balanced}            a schedule: up to 70 % of the steps balanced,
- {until: 1, mixture: {ko: 3, en: 1}}        then Korean three times as often as English
"""

import math
from typing import Any, NamedTuple

from braingpt.errors import UserError, did_you_mean

NAMES = ("proportional", "balanced", "temperature")
# the exponent of `temperature` where none is named
ALPHA = 0.3


class Phase(NamedTuple):
    """A part of a run. `end`: the step before which it lasts, None for the last.

    `weights` by language, summing to 1.
    """

    end: int | None
    weights: dict[str, float]


def check_mixture(value: Any) -> str | dict[str, float] | list[dict[str, Any]]:
    """`value` as it is kept in a recipe.

    UserError that names data.mixture for anything that is no mixture.
    """
    if isinstance(value, list | tuple):
        return _check_schedule(list(value))
    if value == "temperature":
        return {"temperature": ALPHA}
    if isinstance(value, str) and value in NAMES:
        return value
    if not isinstance(value, dict) or not value:
        known = f"{', '.join(NAMES)}, weights such as {{ko: 2, en: 1}}, or a schedule of these"
        raise UserError(f"data.mixture is one of {known}, not {value!r}")
    if "temperature" in value:
        alpha = value["temperature"]
        if len(value) > 1 or not _is_number(alpha) or not 0 <= alpha <= 1:
            raise UserError(
                f"data.mixture: temperature takes an exponent from 0 (balanced) to 1 (proportional) and nothing else, not {value!r}"
            )
        return {"temperature": float(alpha)}
    for language, weight in value.items():
        if not isinstance(language, str):
            raise UserError(
                f"data.mixture: {language!r} is no language code; a code that YAML reads as something else needs quotes"
            )
        if not _is_number(weight) or not 0 < weight < math.inf:
            raise UserError(
                f"data.mixture: the weight of '{language}' must be a positive number, not {weight!r}"
            )
    return {language: float(weight) for language, weight in value.items()}


def _check_schedule(parts: list[Any]) -> list[dict[str, Any]]:
    checked: list[dict[str, Any]] = []
    before = 0.0
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if (
            not isinstance(part, dict)
            or not {"mixture"} <= set(part) <= {"mixture", "until"}
            or isinstance(part["mixture"], list)
        ):
            raise UserError(
                f"data.mixture: a part of a schedule is {{until: SHARE, mixture: MIXTURE}}, not {part!r}"
            )
        until = part.get("until", 1.0 if last else None)
        if not _is_number(until) or not before < until <= 1 or (last and until != 1):
            raise UserError(
                f"data.mixture: 'until' rises from part to part, and the last is 1: a share of the run's steps, not {until!r}"
            )
        checked.append({"until": float(until), "mixture": check_mixture(part["mixture"])})
        before = until
    if not checked:
        raise UserError("data.mixture: the schedule is empty")
    return checked


def is_schedule(mixture: Any) -> bool:
    """Whether a checked mixture changes over the run."""
    return isinstance(mixture, list)


def phases(mixture: Any, windows: dict[str, int], skipped: list[str], steps: int | None) -> list[Phase]:
    """The mixture's phases over a run of `steps`, which only a schedule needs; a phase too short for a step
    is left out.

    `windows`: by language, how many there are; `skipped`: languages with less than one. UserError for a
        language that is neither.
    """
    checked = check_mixture(mixture)
    if not is_schedule(checked):
        return [Phase(None, _weights(checked, windows, skipped))]
    if steps is None:
        raise ValueError("a schedule needs the number of steps")
    found: list[Phase] = []
    for part in checked:
        end = round(part["until"] * steps)
        weights = _weights(part["mixture"], windows, skipped)
        if part["until"] == 1:
            found.append(Phase(None, weights))
        elif end > (found[-1].end if found else 0):
            found.append(Phase(end, weights))
    return found


def _weights(
    mixture: str | dict[str, float], windows: dict[str, int], skipped: list[str]
) -> dict[str, float]:
    """Weights that sum to 1, by language."""
    if isinstance(mixture, str):
        raw = {
            language: float(count) if mixture == "proportional" else 1.0
            for language, count in windows.items()
        }
    elif "temperature" in mixture:
        raw = {language: float(count) ** mixture["temperature"] for language, count in windows.items()}
    else:
        raw = mixture
        for language in raw:
            if language in skipped:
                raise UserError(
                    f"data.mixture names '{language}', whose data is shorter than one window; take a smaller train.context"
                )
            if language not in windows:
                raise UserError(
                    f"data.mixture names '{language}', which the data lacks{did_you_mean(language, windows)}"
                )
    total = sum(raw.values())
    return {language: weight / total for language, weight in raw.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
