"""The keys of JSON values as sorted lines `path: types`, and where two such lists part."""

from typing import Any

# as keys they are data, not names
LANGUAGES = {"ko", "en", "de", "fr", "es", "it"}
EMPTY = {"null", "empty"}


def keys_of(*values: Any) -> list[str]:
    """Paths of all leaves of the values taken together, such as `texts[].number: number`."""
    found: dict[str, set[str]] = {}
    for value in values:
        _walk(value, "", found)
    return sorted(f"{path}: {' or '.join(sorted(types))}" for path, types in found.items())


def differences(found: list[str], recorded: list[str]) -> list[str]:
    """What was recorded and is gone, is new, or has another type.

    A value that is null or empty on one side agrees with any.
    """
    here, there = _parsed(found), _parsed(recorded)
    vague = {path for side in (here, there) for path, types in side.items() if types <= EMPTY}
    said = []
    for words, one, other in (("gone", there, here), ("new", here, there)):
        for path in one:
            if not _met(path, other) and not any(_below(path, part) for part in vague & set(other)):
                said.append(f"{words}: {path}")
    for path in set(here) & set(there) - vague:
        if not here[path] - EMPTY <= there[path] and not there[path] - EMPTY <= here[path]:
            said.append(f"another type: {path} is {here[path]}, was {there[path]}")
    return sorted(said)


def _walk(value: Any, path: str, found: dict[str, set[str]]) -> None:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            _walk(part, f"{path}.{'<language>' if key in LANGUAGES else key}".removeprefix("."), found)
    elif isinstance(value, list) and value:
        for part in value:
            _walk(part, f"{path}[]", found)
    else:
        found.setdefault(path, set()).add(_type(value))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if value is None or value == [] or value == {}:
        return "null" if value is None else "empty"
    return "number" if isinstance(value, int | float) else "text"


def _parsed(lines: list[str]) -> dict[str, set[str]]:
    return {path: set(types.split(" or ")) for path, _, types in (line.rpartition(": ") for line in lines)}


def _below(path: str, part: str) -> bool:
    return path.startswith((f"{part}.", f"{part}[]"))


def _met(path: str, others: dict[str, set[str]]) -> bool:
    """Whether the path, or something below it, is among the others."""
    return path in others or any(_below(other, path) for other in others)
