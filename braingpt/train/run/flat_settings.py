"""A recipe's settings as a flat list: what two runs are compared by."""

from collections.abc import Iterator
from typing import Any

from braingpt.recipes import Recipe


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a resolved recipe by its dotted key, as JSON values."""
    return dict(_flat(recipe.model_dump(mode="json"), ""))


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
