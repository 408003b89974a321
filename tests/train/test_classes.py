"""The classes of vocabulary columns in a run: learned once, kept in every checkpoint."""

from pathlib import Path

import pytest
import torch

from braingpt.checkpoint.load import load
from braingpt.train.loop import train
from tests.tiny_runs import tiny
from tests.train.test_loop import history

COLUMNS = "model.head.kind=columns"


def slots(run: Path) -> torch.Tensor:
    return load(run)[0].embedding.slot


def test_a_run_learns_its_classes_from_its_shards_and_keeps_them(tmp_path, data):
    recipe = tiny("v2", COLUMNS, "train.steps=2", "train.eval_every=2")
    train(recipe, tmp_path / "one", [data], device="cpu")
    train(recipe, tmp_path / "two", [data], device="cpu")
    learned = slots(tmp_path / "one")
    assert not torch.equal(learned, torch.arange(len(learned)))
    assert torch.equal(learned.sort().values, torch.arange(len(learned)))
    assert torch.equal(learned, slots(tmp_path / "two"))


def test_growth_keeps_the_classes(tmp_path, data):
    recipe = tiny("v2", COLUMNS, "train.growth=[0.2, 0.4]", "model.layers=3", "train.steps=10")
    train(recipe, tmp_path / "grown", [data], device="cpu")
    flat = tiny("v2", COLUMNS, "model.layers=3", "train.steps=2", "train.eval_every=2")
    train(flat, tmp_path / "flat", [data], device="cpu")
    assert torch.equal(slots(tmp_path / "grown"), slots(tmp_path / "flat"))


@pytest.mark.parametrize("average", ["null", "0.9"])
def test_a_run_with_classes_validates_as_its_loaded_model_does(tmp_path, data, average):
    recipe = tiny("v2", COLUMNS, "train.steps=4", "train.eval_every=4", f"train.average={average}")
    train(recipe, tmp_path / "run", [data], device="cpu")
    (record,) = [one for one in history(tmp_path / "run") if one["kind"] == "validation"]
    model, tokenizer = load(tmp_path / "run")
    from braingpt.data.shards.reader import ShardSet
    from braingpt.evaluation.perplexity import evaluate

    scores = evaluate(model, ShardSet.open([data], tokenizer), tokenizer, context=32, windows=4)
    assert scores.as_dict()["loss"] == pytest.approx(record["loss"], rel=1e-5)
