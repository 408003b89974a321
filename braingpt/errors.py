"""The errors of braingpt: the command line prints their message on one line, without a traceback."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

E = TypeVar("E", bound=Exception)
# Characters of another library's message that `one_line` keeps.
MAX_MESSAGE = 160


class BraingptError(Exception):
    """Every error that braingpt raises on purpose."""


class UserError(BraingptError, ValueError):
    """An error that the user can correct: a wrong path, an unknown name, a value out of range.

    Exit code 2.
    """


class Failure(BraingptError, RuntimeError):
    """An error that no other command would have prevented: a full disk, a corrupt file. Exit code 1."""


def mark_reported(error: E, elsewhere: bool) -> E:
    """Mark an error that several processes raise, so that only one of them prints the message.

    `elsewhere` is true in the processes that leave the message to another one.
    """
    error._reported_elsewhere = elsewhere  # pyright: ignore[reportAttributeAccessIssue]
    return error


def reported_elsewhere(error: BaseException) -> bool | None:
    """Whether another process prints the error's message; None for an error that is not marked."""
    return getattr(error, "_reported_elsewhere", None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name.

    Args:
        name: What the user wrote.
        known: The names there are.

    Returns:
        `"; did you mean 'X'?"` for the closest name, or the whole list where none is close; "" where none is
        known.
    """
    names = sorted(known)
    if closest := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"; did you mean '{closest[0]}'?"
    separator = "; " if any(", " in name for name in names) else ", "
    return f"; known: {separator.join(names)}" if names else ""


def one_line(error: BaseException) -> str:
    """An exception in one line: our own errors by their message, others with their type in front."""
    text = " ".join(str(error).split())[:MAX_MESSAGE]
    if isinstance(error, UserError | Failure):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
