"""A model trained for a moment on two languages, in a run folder, and a memory made for it."""

import pytest

from braingpt.checkpoint import checkpoint, listing
from braingpt.checkpoint.checkpoint import weights_hash
from braingpt.episodic.memory import EpisodicMemory
from braingpt.train.loop import train
from tests.tiny_runs import prepared, tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder that holds data/sample and runs/nano-v2."""
    root = tmp_path_factory.mktemp("memory")
    prepared(root / "data" / "sample")
    recipe = tiny("v2", "train.steps=60", "train.lr=1e-2", "train.eval_every=60", "train.save_every=60")
    train(recipe, root / "runs" / "nano-v2", [root / "data" / "sample"], device="cpu")
    return root


@pytest.fixture(scope="session")
def loaded(trained):
    """(model, tokenizer, hash of the weights)."""
    model, tokenizer, _, state = checkpoint.load_model(listing.resolve(trained / "runs" / "nano-v2"))
    return model.eval(), tokenizer, weights_hash(state)


@pytest.fixture(scope="session")
def calibrated(loaded):
    """An empty memory; `fresh` copies it."""
    model, tokenizer, weights = loaded
    return EpisodicMemory.fresh(model, tokenizer, weights, {"recipe": "nano-v2", "step": "step 60"})


@pytest.fixture
def memory(calibrated):
    """An empty memory of one's own."""
    from braingpt.episodic.store import Store

    store = Store(calibrated.store.keys_ND.shape[1])
    return EpisodicMemory(calibrated.weights, calibrated.maker, calibrated.gate, store, calibrated.about)
