"""How languages share the rows of a run: `data.mixture` of a recipe, checked, and turned into weights.

proportional             as many rows as a language has tokens
balanced                 the same number for every language
temperature              p ~ n^alpha of its tokens n, alpha 0.3 (Conneau et al. 2020, section 3)
{temperature: 0.5}       the same with another alpha
{ko: 2, en: 1}           weights; languages that are not named are left out
- {until: 0.7, mixture: balanced}            a schedule: up to 70 % of the steps balanced,
- {until: 1, mixture: {ko: 3, en: 1}}        then Korean three times as often as English
"""

import math
from typing import Any, NamedTuple, TypedDict, TypeGuard

from braingpt.errors import UserError, did_you_mean

NAMES = ("proportional", "balanced", "temperature")
# The exponent of `temperature` where none is named.
ALPHA = 0.3

# A mixture that is the same over the whole run, checked: a name, weights, or {"temperature": exponent}.
ConstantMixture = str | dict[str, float]


class ScheduleEntry(TypedDict):
    """One entry of a schedule: the mixture up to the share `until` of the steps."""

    until: float
    mixture: ConstantMixture


Schedule = list[ScheduleEntry]


class Phase(NamedTuple):
    """A part of a run with one mixture.

    Attributes:
        end: The step before which it ends; None for the last.
        weights: Weights by language, summing to 1.
    """

    end: int | None
    weights: dict[str, float]


def check_mixture(value: Any) -> ConstantMixture | Schedule:
    """Check a mixture and bring it into the form in which a recipe keeps it.

    Args:
        value: A mixture in any of the forms above.

    Returns:
        A name, weights, {"temperature": exponent}, or a schedule of these.

    Raises:
        UserError: `value` is not a mixture; the message names data.mixture.
    """
    return _check_schedule(list(value)) if isinstance(value, list | tuple) else _check_constant(value)


def _check_constant(value: Any) -> ConstantMixture:
    if value == "temperature":
        return {"temperature": ALPHA}
    if isinstance(value, str) and value in NAMES:
        return value
    if not isinstance(value, dict) or not value:
        known = f"{', '.join(NAMES)}, weights such as {{ko: 2, en: 1}}, or a schedule of these"
        raise UserError(f"data.mixture must be one of {known}, not {value!r}")
    if "temperature" in value:
        alpha = value["temperature"]
        if len(value) > 1 or not _is_number(alpha) or not 0 <= alpha <= 1:
            raise UserError(
                "data.mixture: temperature takes an exponent from 0 (balanced) to 1 (proportional) "
                f"and nothing else, not {value!r}"
            )
        return {"temperature": float(alpha)}
    for language, weight in value.items():
        if not isinstance(language, str):
            raise UserError(
                f"data.mixture: {language!r} is not a language code; "
                "a code that YAML reads as something else needs quotes"
            )
        if not _is_number(weight) or not 0 < weight < math.inf:
            raise UserError(
                f"data.mixture: the weight of '{language}' must be a positive number, not {weight!r}"
            )
    return {language: float(weight) for language, weight in value.items()}


def _check_schedule(entries: list[Any]) -> Schedule:
    checked: Schedule = []
    before = 0.0
    for number, entry in enumerate(entries):
        last = number == len(entries) - 1
        if (
            not isinstance(entry, dict)
            or not {"mixture"} <= set(entry) <= {"mixture", "until"}
            or isinstance(entry["mixture"], list)
        ):
            raise UserError(
                f"data.mixture: a part of a schedule is {{until: SHARE, mixture: MIXTURE}}, not {entry!r}"
            )
        until = entry.get("until", 1.0 if last else None)
        if not _is_number(until) or not before < until <= 1 or (last and until != 1):
            raise UserError(
                "data.mixture: 'until' is a share of the run's steps, rises from part to part and ends at 1, "
                f"not {until!r}"
            )
        checked.append({"until": float(until), "mixture": _check_constant(entry["mixture"])})
        before = until
    if not checked:
        raise UserError("data.mixture: the schedule is empty; give at least one part")
    return checked


def is_schedule(mixture: Any) -> TypeGuard[Schedule]:
    """Whether a checked mixture changes over the run."""
    return isinstance(mixture, list)


def phases_of(mixture: Any, windows: dict[str, int], skipped: list[str], steps: int | None) -> list[Phase]:
    """The phases of a mixture over a run; a phase too short for a step is left out.

    Args:
        mixture: A mixture in any of the forms above.
        windows: Number of windows by language.
        skipped: Languages with less than one window.
        steps: Steps of the run, which only a schedule needs.

    Raises:
        UserError: The mixture names a language that the data lacks or has too little of.
        ValueError: A schedule has no number of steps.
    """
    checked = check_mixture(mixture)
    if not isinstance(checked, list):
        return [Phase(None, _weights(checked, windows, skipped))]
    if steps is None:
        raise ValueError("a schedule needs the number of steps")
    phases: list[Phase] = []
    last_end = 0
    for entry in checked:
        end = round(entry["until"] * steps)
        weights = _weights(entry["mixture"], windows, skipped)
        if entry["until"] == 1:
            phases.append(Phase(None, weights))
        elif end > last_end:
            phases.append(Phase(end, weights))
            last_end = end
    return phases


def _weights(mixture: ConstantMixture, windows: dict[str, int], skipped: list[str]) -> dict[str, float]:
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
                    f"data.mixture names '{language}', whose data is shorter than one window; "
                    "take a smaller train.context"
                )
            if language not in windows:
                raise UserError(
                    f"data.mixture names '{language}', which the data lacks{did_you_mean(language, windows)}"
                )
    total = sum(raw.values())
    return {language: weight / total for language, weight in raw.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
