import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.inspection.page import page, pictures
from braingpt.inspection.runner import TokenWindows, inspect_model
from braingpt.inspection.specialisation import information, labels, loads, script, specialisation
from braingpt.inspection.trace import Trace
from braingpt.model.lm import build
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import Piece

T = Tokenizer.default()


def test_columns_that_follow_the_label_tell_all_and_others_nothing():
    label = torch.arange(400) % 4
    assert information(label[:, None], label, 4, 4) == pytest.approx((2, 2))
    assert information(torch.zeros(400, 1, dtype=torch.long), label, 4, 4) == pytest.approx((0, 2))
    # Two winners a token, one bit between them.
    halves = torch.stack([label // 2, 2 + label // 2], 1)
    assert information(halves, label, 4, 4) == pytest.approx((1, 2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=60))
def test_information_lies_between_nothing_and_the_entropy(pairs):
    column, label = torch.tensor(pairs).T
    bits, entropy = information(column[:, None], label, 6, 4)
    assert -1e-9 <= bits <= entropy + 1e-9


def test_what_is_told_exceeds_chance_only_where_columns_know():
    generator = torch.Generator().manual_seed(0)
    label = ["a", "b"] * 300
    knows = torch.tensor([[0], [1]] * 300)
    guesses = torch.randint(8, (600, 1), generator=generator)
    arrived = torch.ones(3, 600, dtype=torch.bool)
    found = Trace([0] * 600, arrived, arrived, [knows, guesses, None], [2, 8, 0])
    # A label that does not vary says nothing.
    sure, unsure = specialisation(found, {"language": label, "place": ["all"] * 600})
    assert sure.share == pytest.approx(1) and sure.shuffled < 0.05 and sure.entropy == pytest.approx(1)
    assert unsure.share < 0.05
    assert loads(found, label) == {
        "a": [[2, 0], pytest.approx(loads(found, label)["a"][1])],
        "b": [[0, 2], loads(found, label)["b"][1]],
    }


def test_tokens_are_labelled_by_language_script_and_place():
    ids = [T.markers["ko"], *T.encode("한강은 흐른다. 12 The river flows through the old city.")]
    found = labels(T, [torch.tensor([ids])], [None])
    english = len(ids) - len(T.encode(" The river flows through the old city."))
    assert set(found["language"][english:]) == {"en"} and set(found["script"][english:]) == {"latin", "marks"}
    assert set(found["language"][1 : english - 1]) == {"ko"} and "hangul" in found["script"][:english]
    assert found["language"][0] == "?" and found["script"][0] == "special" and found["language"][-1] == "en"
    assert (
        found["place"][0] == "beginning"
        and found["place"][-1] == "end"
        and {len(values) for values in found.values()} == {len(ids)}
    )
    assert set(labels(T, [torch.tensor([ids])], ["de"])["language"]) == {"de"}
    kinds = {
        " 한": "hangul",
        "é": "latin",
        "7": "digits",
        ", ": "marks",
        "я": "other letters",
        "\ufffd": "marks",
    }
    assert {text: script(Piece(text, (1,))) for text in kinds} == kinds


@pytest.mark.parametrize("name", ["nano-v2", "nano-v1", "nano-dense"])
def test_the_page_holds_every_picture_and_loads_nothing(name):
    model = build(load_recipe(name, ["model.layers=2", "model.hidden=32", "model.heads=4"]).model).eval()
    text = TokenWindows.of(
        [
            ("ko", T.encode("한강은 서울을 가로질러 흐른다. " * 6, "ko")),
            ("en", T.encode("<b>The river & the city</b> " * 6, "en")),
        ],
        32,
    )
    found = inspect_model(model, T, text, rounds=0)
    drawn = pictures(found, [{"step": s, **found.as_dict()["total"]} for s in (1, 2)])
    expected = {"columns-ko", "columns-en", "specialisation"} if name != "nano-dense" else set()
    assert set(drawn) == expected | {"depth", "growth"}
    html = page({"recipe": name, "step": 3, "text": "a & b"}, found, drawn, T)
    assert (
        html.count("<figure>") == len(drawn)
        and "<b>The" not in html
        and "src=" not in html
        and "a &amp; b" in html
    )
    shown = re.sub("<[^>]*>", "", html)
    assert "한강은 서울을 가로질러 흐른다." in shown and "The river &amp; the city" in shown
