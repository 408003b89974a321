"""A saved checkpoint of a small real model with the real vocabulary."""

import pytest

from braingpt.checkpoint import checkpoint
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.tiny_runs import tiny


@pytest.fixture(scope="session", params=["dense", "v1", "v2"])
def saved(request, tmp_path_factory):
    """A checkpoint folder without an optimizer, in a run folder."""
    recipe = tiny(request.param)
    model = awake(recipe.model).float()
    folder = tmp_path_factory.mktemp("runs") / recipe.name / "checkpoints" / "step-0000007"
    return checkpoint.save(
        folder,
        model=model,
        tokenizer=Tokenizer.default(),
        recipe=recipe,
        step=7,
        tokens=70,
        extra={"best": None},
    )
