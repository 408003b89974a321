import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.shards.reader import ShardSet
from braingpt.errors import UserError
from braingpt.evaluation.perplexity import (
    IGNORED,
    Score,
    evaluate,
    evaluate_text,
    score_rows,
    scoring_windows,
)
from braingpt.model.lm import build
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.tiny_runs import prepared, tiny

T = Tokenizer.default()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return ShardSet.open([prepared(tmp_path_factory.mktemp("data") / "sample")], T)


@pytest.fixture(scope="module")
def model():
    return awake(tiny("v2").model).float()


def even(model):
    """A model that holds every token equally likely."""
    with torch.no_grad():
        model.embedding.weight.zero_()
    return model


def test_an_even_guess_costs_ln_v_a_token():
    text = "한강은 서울을 가로질러 흐른다."
    scores = evaluate_text(even(build(tiny("dense"))), T, text, "ko", context=8)
    # And the end; the marker is given.
    count = len(T.encode(text)) + 1
    assert scores.tokens == count and scores.bytes == len(text.encode())
    assert scores.loss == pytest.approx(math.log(T.vocab_size)) and scores.perplexity == pytest.approx(
        T.vocab_size
    )
    # The end of the text is no byte: it counts for the loss, not for the bits.
    assert scores.bits_per_byte == pytest.approx((count - 1) * math.log2(T.vocab_size) / len(text.encode()))


def test_figures_equal_a_plain_computation(model, shards):
    scores = evaluate(model, shards, T, context=32, windows=3, rows=2)
    nats, text_nats, size, tokens = 0.0, 0.0, 0, 0
    for language in ("ko", "en"):
        total = shards.windows("validation", language, 33)
        for index in [number * total // 3 for number in range(3)]:
            window = torch.from_numpy(shards.window("validation", language, index, 33))
            with torch.no_grad():
                log_LV = model.eval()(window[None, :-1]).logits[0].double().log_softmax(-1)
            for place, token in enumerate(window[1:].tolist()):
                loss = -float(log_LV[place, token])
                nats, tokens = nats + loss, tokens + 1
                if token < T.eot:
                    text_nats, size = text_nats + loss, size + len(T.decode_bytes([token]))
    assert scores.tokens == tokens == 192 and scores.bytes == size
    assert scores.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert scores.bits_per_byte == pytest.approx(text_nats / math.log(2) / size, rel=1e-5)
    assert scores.perplexity == pytest.approx(math.exp(scores.loss))
    assert (
        list(scores.by_language) == ["ko", "en"]
        and sum(s.tokens for s in scores.by_language.values()) == tokens
    )
    assert scores.nats == pytest.approx(sum(s.nats for s in scores.by_language.values()))


def test_how_many_rows_at_a_time_changes_nothing(model, shards):
    one, many = (evaluate(model, shards, T, context=16, windows=5, rows=rows) for rows in (1, 4))
    assert one.tokens == many.tokens and one.loss == pytest.approx(many.loss, rel=1e-6)
    only = evaluate(model, shards, T, context=16, windows=5, languages=["en"])
    assert list(only.by_language) == ["en"] and only.tokens == one.by_language["en"].tokens


def test_the_mode_comes_back(model, shards):
    model.train()
    evaluate(model, shards, T, context=16, windows=1)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_text_equals_one_long_window_where_it_fits(model):
    text = "The river flows through the city, and the city sleeps."
    ids = [*T.encode(text, language="en"), T.eot]
    with torch.no_grad():
        loss = model.eval()(torch.tensor([ids[:-1]]), torch.tensor([ids[1:]])).loss
    scores = evaluate_text(model, T, text, context=512)
    assert list(scores.by_language) == ["en"] and scores.loss == pytest.approx(float(loss), rel=1e-5)
    assert list(evaluate_text(model, T, "12 34").by_language) == ["?"]
    for empty in ("", " \n"):
        with pytest.raises(UserError, match="empty"):
            evaluate_text(model, T, empty)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 80), st.integers(1, 20), st.integers(1, 5))
def test_windows_predict_every_token_but_the_first_once(count, context, rows):
    ids = list(range(1000, 1000 + count))
    seen = []
    for ids_BL, targets_BL in scoring_windows(ids, context, rows):
        assert ids_BL.shape == targets_BL.shape and ids_BL.shape[0] <= rows and ids_BL.shape[1] <= context
        scored = targets_BL != IGNORED
        assert torch.equal(ids_BL[scored] + 1, targets_BL[scored])
        seen += targets_BL[scored].tolist()
    assert seen == ids[1:]


def test_ignored_targets_count_for_nothing(model):
    ids = torch.tensor([[1, 2, 3, 4]])
    sizes = torch.from_numpy(T.token_bytes())
    (whole,) = score_rows(model, ids, torch.tensor([[2, 3, 4, 5]]), sizes)
    (part,) = score_rows(model, ids, torch.tensor([[2, IGNORED, IGNORED, IGNORED]]), sizes)
    assert part.tokens == 1 and whole.tokens == 4 and part.nats < whole.nats and part.bytes == 1


def test_too_little_data_is_said(model, shards):
    with pytest.raises(UserError, match="no validation window of 100000 tokens"):
        evaluate(model, shards, T, context=100_000, windows=1)


def test_figures_of_nothing_are_none_and_json_has_no_infinity():
    assert Score().as_dict() == {
        "tokens": 0,
        "bytes": 0,
        "loss": None,
        "perplexity": None,
        "bits_per_byte": None,
    }
    assert (
        Score(1, 0, 800.0, 0.0).as_dict()["perplexity"] is None
        and Score(1, 0, 800.0, 0.0).perplexity == math.inf
    )
