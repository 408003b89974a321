"""Every documented function under inference mode, without gradients, and with values of the wrong kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import braingpt
from braingpt.checkpoint import checkpoint
from braingpt.inference.engine import generate_batch
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer
from tests.conftest import SMALL
from tests.tiny_runs import tiny

T = torch.tensor
MODEL = braingpt.build(SMALL["v2"]).eval()
DEEP, EARLY = braingpt.build(SMALL["v2-depth"]).eval(), braingpt.build(SMALL["v1"]).eval()
TOKENIZER = Tokenizer.default()

WRONG: dict[str, Callable[[], Any]] = {
    "load: no run": lambda: braingpt.load("none"),
    "load: a number": lambda: braingpt.load(3),  # type: ignore[arg-type]
    "load: bytes": lambda: braingpt.load(b"runs"),  # type: ignore[arg-type]
    "load_recipe: no name": lambda: braingpt.load_recipe("nano-v9"),
    "load_recipe: None": lambda: braingpt.load_recipe(None),  # type: ignore[arg-type]
    "load_recipe: one override": lambda: braingpt.load_recipe("nano-v2", "train.lr=1"),  # type: ignore[arg-type]
    "load_recipe: a number as override": lambda: braingpt.load_recipe("nano-v2", [1]),  # type: ignore[list-item]
    "load_recipe: another name": lambda: braingpt.load_recipe("nano-v2", ["train.learning_rate=1"]),
    "build: a name": lambda: braingpt.build("nano-v2"),  # type: ignore[arg-type]
    "build: a seed": lambda: braingpt.build(SMALL["v2"], seed="a"),  # type: ignore[arg-type]
    "generate: nothing": lambda: MODEL.generate([]),
    "generate: a text": lambda: MODEL.generate("hello"),  # type: ignore[arg-type]
    "generate: None": lambda: MODEL.generate(None),  # type: ignore[arg-type]
    "generate: a fraction": lambda: MODEL.generate([1.5]),  # type: ignore[list-item]
    "generate: a batch": lambda: MODEL.generate(T([[1, 2]])),  # type: ignore[arg-type]
    "generate: outside": lambda: MODEL.generate([97]),
    "generate: below 0": lambda: MODEL.generate([-1]),
    "generate: length below 0": lambda: MODEL.generate([1], max_new_tokens=-1),
    "generate: length a text": lambda: MODEL.generate([1], max_new_tokens="3"),  # type: ignore[arg-type]
    "generate: length a fraction": lambda: MODEL.generate([1], max_new_tokens=2.5),  # type: ignore[arg-type]
    "generate: temperature": lambda: MODEL.generate([1], temperature=-1),
    "generate: temperature nan": lambda: MODEL.generate([1], temperature=float("nan")),
    "generate: temperature a text": lambda: MODEL.generate([1], temperature="a"),  # type: ignore[arg-type]
    "generate: top_k 0": lambda: MODEL.generate([1], top_k=0),
    "generate: top_k a fraction": lambda: MODEL.generate([1], top_k=1.5),  # type: ignore[arg-type]
    "generate: top_p": lambda: MODEL.generate([1], top_p=2),
    "generate: top_p a text": lambda: MODEL.generate([1], top_p="a"),  # type: ignore[arg-type]
    "generate: seed": lambda: MODEL.generate([1], seed=-2),
    "generate: seed a fraction": lambda: MODEL.generate([1], seed=1.5),  # type: ignore[arg-type]
    "generate: stop a number": lambda: MODEL.generate([1], stop=3),  # type: ignore[arg-type]
    "generate: stop outside": lambda: MODEL.generate([1], stop=[97]),
    "generate: banned outside": lambda: MODEL.generate([1], banned=[97]),
    "generate_batch: one prompt": lambda: generate_batch(MODEL, [1, 2], 3),  # type: ignore[list-item]
    "generate_batch: banned": lambda: generate_batch(MODEL, [[1]], 3, banned=[-1]),
    "braingpt.generate: language": lambda: braingpt.generate(MODEL, TOKENIZER, "a", language="xx"),
    "braingpt.generate: a number": lambda: braingpt.generate(MODEL, TOKENIZER, 3),  # type: ignore[arg-type]
    "forward: a list": lambda: MODEL([[1, 2]]),
    "forward: fractions": lambda: MODEL(T([[1.0, 2.0]])),
    "forward: one row": lambda: MODEL(T([1, 2])),
    "forward: no token": lambda: MODEL(torch.zeros(1, 0, dtype=torch.long)),
    "forward: outside": lambda: MODEL(T([[97]])),
    "forward: below 0": lambda: MODEL(T([[-1]])),
    "forward: fewer targets": lambda: MODEL(T([[1, 2]]), targets_BL=T([[1]])),
    "forward: targets outside": lambda: MODEL(T([[1, 2]]), targets_BL=T([[1, 97]])),
    "forward: targets a list": lambda: MODEL(T([[1, 2]]), targets_BL=[[1, 2]]),
    "forward: reduction": lambda: MODEL(T([[1, 2]]), targets_BL=T([[1, 2]]), reduction="sum"),
    "forward: state of other rows": lambda: MODEL(T([[1, 2]]), state=MODEL.new_state(2)),
    "new_state: no rows": lambda: MODEL.new_state(0),
    "new_state: a text": lambda: MODEL.new_state("a"),  # type: ignore[arg-type]
    "step: a batch": lambda: MODEL.step(T([[1]]), MODEL.new_state(1)),
    "step: no state": lambda: MODEL.step(T([1]), None),
    "set_effort: no exits": lambda: MODEL.set_effort(0.5),
    "set_effort: a text": lambda: DEEP.set_effort("a"),  # type: ignore[arg-type]
    "set_effort: above 1": lambda: DEEP.set_effort(1.5),
    "set_exit_threshold: no exits": lambda: MODEL.set_exit_threshold(0.5),
    "set_exit_threshold: a text": lambda: EARLY.set_exit_threshold("a"),  # type: ignore[arg-type]
    "set_exit_threshold: above 1": lambda: EARLY.set_exit_threshold(2),
    "flops_per_token: a text": lambda: MODEL.flops_per_token("a"),  # type: ignore[arg-type]
    "state_bytes: below 0": lambda: MODEL.state_bytes(-1),
    "encode: a number": lambda: TOKENIZER.encode(3),  # type: ignore[arg-type]
    "encode: bytes": lambda: TOKENIZER.encode(b"a"),  # type: ignore[arg-type]
    "encode: None": lambda: TOKENIZER.encode(None),  # type: ignore[arg-type]
    "encode: a language": lambda: TOKENIZER.encode("a", "xx"),
    "encode: a number as language": lambda: TOKENIZER.encode("a", 3),  # type: ignore[arg-type]
    "encode: a lone surrogate": lambda: TOKENIZER.encode("\ud800"),
    "encode_batch: one text": lambda: TOKENIZER.encode_batch("ab"),  # type: ignore[arg-type]
    "encode_batch: a number": lambda: TOKENIZER.encode_batch([1]),  # type: ignore[list-item]
    "decode: outside": lambda: TOKENIZER.decode([10**6]),
    "decode: one id": lambda: TOKENIZER.decode(3),  # type: ignore[arg-type]
    "decode: a text": lambda: TOKENIZER.decode("ab"),
    "decode: a fraction": lambda: TOKENIZER.decode([1.5]),  # type: ignore[list-item]
    "push: a text": lambda: TOKENIZER.stream().push("a"),  # type: ignore[arg-type]
    "Tokenizer.load: no folder": lambda: Tokenizer.load("none"),
    "Tokenizer.load: a number": lambda: Tokenizer.load(3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_clear_line(name: str, mode: Callable[[], Any]) -> None:
    with mode(), pytest.raises(braingpt.UserError) as raised:
        WRONG[name]()
    message = str(raised.value)
    assert message and "\n" not in message and len(message) < 600
    assert "Traceback" not in message and "NoneType' object" not in message


def test_integers_of_other_libraries_are_ids() -> None:
    plain = MODEL.generate([5, 6], max_new_tokens=2, seed=0)
    for ids in (T([5, 6]), np.array([5, 6]), (5, 6), [np.int64(5), 6]):
        assert MODEL.generate(ids, max_new_tokens=np.int64(2), seed=0) == plain  # type: ignore[arg-type]
    assert TOKENIZER.decode(np.array([72])) == TOKENIZER.decode(T([72])) == TOKENIZER.decode([72])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("dense", "v1", "v2"):
        recipe = tiny(name)
        checkpoint.save(
            folder / name / "checkpoints" / "step-0000001",
            model=braingpt.build(recipe),
            tokenizer=TOKENIZER,
            recipe=recipe,
            step=1,
            tokens=1,
        )
    return folder


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("name", ["dense", "v1", "v2"])
def test_a_model_that_was_loaded_in_any_mode_is_used_and_trained(
    runs: Path, name: str, mode: Callable[[], Any]
) -> None:
    with mode():
        model, tokenizer = braingpt.load(runs / name)
        fresh = braingpt.build(tiny(name))
        text = braingpt.generate(model, tokenizer, "옛날", max_new_tokens=3, seed=0)
        state = model.new_state(1)
        logits = model.step(T([5]), state)
    expected, _ = braingpt.load(runs / name)
    assert braingpt.generate(expected, tokenizer, "옛날", max_new_tokens=3, seed=0) == text
    assert torch.equal(expected(T([[5]])).logits[:, -1], logits) or torch.allclose(
        expected(T([[5]])).logits[:, -1], logits, atol=1e-5
    )
    for one in (model, fresh):
        assert not any(tensor.is_inference() for tensor in one.state_dict().values())
        one.eval()(T([[5, 6]]), targets_BL=T([[6, 7]])).loss.backward()
        _train(one)
    assert braingpt.generate(model, tokenizer, "옛날", max_new_tokens=3, seed=0) is not None


def _train(model: LanguageModel) -> None:
    """A step that changes the weights."""
    before = model.embedding.weight.detach().clone()
    model.train()
    ids = torch.arange(34).reshape(2, 17)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ids[:, :-1], targets_BL=ids[:, 1:]).loss.backward()
    optimizer.step()
    model.after_step()
    assert not torch.equal(before, model.embedding.weight)


def test_generation_ends_at_the_end_of_text(runs: Path) -> None:
    model, tokenizer = braingpt.load(runs / "dense")
    assert model.end_of_text == tokenizer.eot
    # The end of text is made as likely as any other token: with more tokens than this it is drawn.
    endless = model.generate([5], max_new_tokens=30, temperature=100, seed=0, stop=[])
    first = endless[3]
    model.end_of_text = first
    assert model.generate([5], max_new_tokens=30, temperature=100, seed=0) == endless[: endless.index(first)]
    assert model.generate([5], max_new_tokens=30, temperature=100, seed=0, stop=()) == endless
    # What was chosen is decoded whole when specials are asked for.
    assert tokenizer.decode([72, tokenizer.eot], specials=True) == tokenizer.decode([72]) + "<|endoftext|>"
    assert braingpt.build(tiny("dense")).end_of_text is None


def test_nothing_is_printed(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = braingpt.load(runs / "v2")
    braingpt.generate(model, tokenizer, "a", max_new_tokens=3)
    _train(model)
    assert capfd.readouterr() == ("", "")
