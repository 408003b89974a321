"""Names, shapes and dtypes of the tensors of every shipped recipe.

A wanted change: python -m tests.frozen.record tensors
"""

import pytest

from tests.frozen.calls import DATA, recorded
from tests.frozen.tensors import collapsed

RECIPES = sorted(path.stem for path in (DATA.parents[2] / "recipes").glob("[!_]*.yaml"))


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    return {}


@pytest.mark.parametrize("recipe", RECIPES)
def test_tensors_are_those_recorded(recipe: str, known: dict[str, list[str]]) -> None:
    found = collapsed(recipe, known)
    assert found == recorded("tensors", recipe, found)


def test_no_recipe_is_gone() -> None:
    import json

    assert set(json.loads((DATA / "tensors.json").read_text("utf-8"))) == set(RECIPES)
