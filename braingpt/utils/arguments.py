"""Checks of what a program gives to the Python API: a wrong type is one line that says what is wanted."""

import operator
import os
from pathlib import Path
from typing import Any

from braingpt.errors import UserError


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """The value as an integer.

    Args:
        name: What the value is, for the message.
        value: An integer of Python, numpy or torch.
        least: The smallest value allowed.

    Raises:
        UserError: The value is no whole number, or smaller.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise UserError(f"{name} must be at least {least}, not {number}")
    return number


def check_number(name: str, value: Any) -> None:
    """Raise UserError unless the value is a number that can be compared."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise UserError(f"{name} must be a number, not {value!r}")


def path_of(name: str, value: Any) -> Path:
    """The value as a path; UserError where it is none."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} must be a path, not {value!r}")
    return Path(value)
