"""The keys of all JSON on standard output and in files.

A wanted change: python -m tests.frozen.record keys
"""

import pytest

from tests.frozen.keys import all_keys, assert_lines
from tests.frozen.shapes import differences, keys_of

NAMES = (
    "data prepare", "data join", "data list", "data info", "data verify", "data sample", "data report",
    "tokenizer train", "tokenizer add-language", "tokenizer report", "tokenizer encode", "train --plan",
    "train", "recipes show", "runs list", "runs show", "runs compare", "export", "doctor", "generate",
    "chat", "eval", "calibrate", "inspect-sparsity", "memory add", "memory list", "memory forget",
    "manifest.json", "state.json", "best.json", "tokenizer.json", "memory file",
    "optimizer.safetensors, dense", "metrics.jsonl, train", "metrics.jsonl, validation",
    "metrics.jsonl, growth", "metrics.jsonl, rewind", "metrics.jsonl, incident",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[str]]:
    return all_keys(tmp_path_factory.mktemp("keys"))


def test_all_are_there(found) -> None:
    assert set(found) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_those_recorded(found, name: str) -> None:
    assert_lines(name, found[name])


def test_a_difference_is_reported() -> None:
    one = keys_of({"loss": 1.0, "best": None, "texts": [{"number": 1}]})
    assert one == ["best: null", "loss: number", "texts[].number: number"]
    assert differences(keys_of({"loss": 2, "best": {"step": 3}, "texts": []}), one) == []
    assert differences(keys_of({"Loss": 2, "best": None, "texts": [{"number": "1"}]}), one) == [
        "another type: texts[].number is {'text'}, was {'number'}",
        "gone: loss",
        "new: Loss",
    ]
