"""What an earlier version wrote (`data/README.md` says how): today's code reads it and continues it to the
same numbers.

The values are those of that version and are never recorded again; only for a new processor or torch, where
nothing else has changed: python -m tests.frozen.record written
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import braingpt
from tests.frozen.calls import call, call_json, metrics, place, recorded
from tests.frozen.machine import this_machine

RUNS = ("dense", "v1", "v2", "v2-memory")
CPU = ("--device", "cpu")
PROMPT = "The cat is called"


@pytest.fixture
def here(tmp_path):
    with place(tmp_path) as folder:
        yield folder


def agree(name: str, found: dict[str, Any]) -> None:
    """Numbers are those recorded: bit for bit on the machine that recorded them, else nearly; anything else
    always.
    """
    found = {"machine": this_machine()} | found
    known = recorded("written", name, found)
    assert set(found) == set(known)
    for key in set(found) - {"machine"}:
        if found["machine"] == known["machine"] or not _is_numbers(known[key]):
            assert found[key] == known[key], key
        else:
            assert _floats(found[key]) == pytest.approx(_floats(known[key]), rel=1e-3, abs=1e-4), key


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and "0x" in one for one in value)


def _floats(values: list[str]) -> list[float]:
    return [float.fromhex(value) for value in values]


def _hexes(values: Any) -> list[str]:
    return [float(value).hex() for value in values]


@pytest.mark.parametrize("run", RUNS)
def test_a_checkpoint_is_loaded_and_computes_the_same(here: Path, run: str) -> None:
    model, tokenizer = braingpt.load(f"runs/{run}")
    ids = torch.tensor([tokenizer.encode("고양이의 이름은 콩이예요. The cat is called Biscuit.", "ko")[:32]])
    with torch.no_grad():
        output = model(ids[:, :-1], ids[:, 1:])
        logits = model(ids).logits
    text = call_json(
        "generate",
        f"runs/{run}",
        "--prompt",
        PROMPT,
        "--temperature",
        0,
        "--max-new-tokens",
        4,
        *CPU,
        "--json",
    )
    agree(
        f"loaded, {run}",
        {
            "ids": ids[0].tolist(),
            "loss": _hexes([output.loss]),
            "logits": _hexes(logits[0, -1, ::23]),
            "first logits": _hexes(logits[0, 0, ::23]),
            "written": text["tokens"],
            "step": text["step"],
        },
    )


@pytest.mark.parametrize("run", RUNS)
def test_a_run_continues_to_the_same_losses(here: Path, run: str) -> None:
    before = metrics(f"runs/{run}")
    call("train", "--resume", "auto", "--out", f"runs/{run}", *CPU)
    records = metrics(f"runs/{run}")
    assert records[: len(before)] == before
    later = [record for record in records[len(before) :] if "loss" in record]
    agree(
        f"resumed, {run}",
        {
            "what": [[record["kind"], record["step"]] for record in later],
            "losses": _hexes(record["loss"] for record in later),
        },
    )
    state = json.loads((here / f"runs/{run}/checkpoints/step-0000006/state.json").read_text("utf-8"))
    assert state["step"] == 6


def test_runs_are_listed_and_shown(here: Path) -> None:
    assert {run["name"] for run in call_json("runs", "list", "--json")} == set(RUNS)
    for run in RUNS:
        shown = call_json("runs", "show", f"runs/{run}", "--json")
        steady = (
            "architecture",
            "best",
            "checkpoint",
            "checkpoints",
            "layers",
            "loss",
            "parameters_active",
            "parameters_total",
            "step",
        )
        assert {key: shown[key] for key in steady} == recorded(
            "written", f"shown, {run}", {key: shown[key] for key in steady}
        )


def test_prepared_data_are_read(here: Path) -> None:
    checked = call_json("data", "verify", "data/sample", "--json")
    assert checked["problems"] == [] and checked["files"] == 12
    drawn = call_json("data", "sample", "data/sample", "-n", 3, "--json")
    texts = [[one["language"], one["start"], one["text"][:60]] for one in drawn]
    assert texts == recorded("written", "documents", texts)


def test_a_memory_is_read_asked_and_added_to(here: Path) -> None:
    texts = ["고양이의 이름은 콩이예요.", "The cat is called Biscuit."]
    assert [text["text"] for text in call_json("memory", "list", "facts.memory", "--json")["texts"]] == texts
    ask = (
        "generate",
        "runs/v2",
        "--prompt",
        PROMPT,
        "--temperature",
        0,
        "--max-new-tokens",
        12,
        *CPU,
        "--json",
    )
    plain, remembered = call_json(*ask), call_json(*ask, "--memory", "facts.memory")
    assert plain["tokens"] != remembered["tokens"]
    agree("remembered", {"tokens": remembered["tokens"], "text": remembered["text"]})
    added = call_json("memory", "add", "facts.memory", "Rex is a dog.", "--run", "runs/v2", *CPU, "--json")
    assert added["texts"][0]["number"] == 3


def test_a_tokenizer_is_opened(here: Path) -> None:
    text = "고양이의 이름은 콩이예요. The number is 7."
    ids = [
        token["id"]
        for token in call_json("tokenizer", "encode", text, "--tokenizer", "tokenizer", "--json")["tokens"]
    ]
    assert ids == recorded("written", "ids", ids)
    assert braingpt.Tokenizer.load("tokenizer").decode(ids) == text
