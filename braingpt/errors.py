"""The two errors a user may see. The command line prints their message on one line, without a traceback.

Where several processes end with the same error, one of them says it: the others' has an attribute `said`.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can put right: a wrong path, an unknown name, a value out of range. Exit code 2."""


class Failure(RuntimeError):
    """Something went wrong that no other spelling of the command would have prevented: a full disk, a corrupt
    file. Exit code 1.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean X?"` for the known name closest to `name`, or the whole list when none is close; ""
    where none is known.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    parting = "; " if any(", " in name for name in known) else ", "
    return f"; did you mean '{close[0]}'?" if close else f"; known: {parting.join(known)}" if known else ""


def one_line(error: BaseException) -> str:
    """An exception in a line: our own by their message, others with their type before it."""
    text = " ".join(str(error).split())[:160]
    return (
        text
        if isinstance(error, UserError | Failure)
        else f"{type(error).__name__}: {text}"
        if text
        else type(error).__name__
    )
