"""docs/evaluation.md names every key of the JSON that `eval` and `inspect-sparsity` write."""

import re
from pathlib import Path

import torch

from braingpt.evaluation.uncertainty import Figure, compare
from braingpt.inspection.runner import Text, inspect_model
from braingpt.model.lm import build
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer

TEXT = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
EVAL, INSPECT = (
    set(re.findall(r"`([a-z_0-9]+)`", part))
    for part in re.split("### JSON of inspect-sparsity", TEXT.split("### JSON of eval")[1])
)


def keys(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_the_keys_of_eval_are_described():
    one = Figure("task", "ko", "accuracy", torch.ones(3).numpy(), torch.ones(3).numpy())
    assert keys([one.as_dict(), compare(one, one).as_dict()]) <= EVAL
    assert {"run", "layers_used", "halting", "figures", "notes", "lm_eval", "against", "comparisons"} <= EVAL


def test_the_keys_of_inspect_sparsity_are_described():
    model, tokenizer = (
        build(load_recipe("nano-v2", ["model.hidden=32", "model.mamba.head=8"]).model).eval(),
        Tokenizer.default(),
    )
    found = inspect_model(
        model, tokenizer, Text.of([("ko", tokenizer.encode("한강은 서울을 흐른다. " * 4))], 32), rounds=1
    ).as_dict()
    # named by language
    found.pop("loads")
    assert keys(found) <= INSPECT and {"loads", "growth", "episodic", "parameters_active"} <= INSPECT
