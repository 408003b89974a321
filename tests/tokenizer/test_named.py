"""GPT's vocabularies by name: tiktoken's ids for text, our markers after them."""

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.named import NAMED, open_tokenizer


@pytest.fixture(scope="module", params=NAMED)
def pair(ranks, request):
    """(ours, tiktoken's)."""
    return open_tokenizer(request.param), tiktoken.get_encoding(NAMED[request.param])


@settings(max_examples=80, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_ids_are_tiktokens_and_text_comes_back(pair, text):
    ours, theirs = pair
    cleaned = clean_text(text)
    assert ours.encode(text) == theirs.encode_ordinary(cleaned)
    for language in (None, "auto", "split"):
        assert ours.decode(ours.encode(text, language)) == cleaned


def test_layout(pair, tmp_path):
    ours, theirs = pair
    assert ours.pattern == theirs._pat_str
    assert ours.eot == theirs.n_vocab and ours.vocab_size == theirs.n_vocab + 64
    assert ours.markers["ko"] == theirs.n_vocab + 4
    assert ours.decode([ours.eot, theirs.eot_token], specials=True) == "<|endoftext|>", (
        "their own specials stay unused"
    )
    assert ours.encode("<|endoftext|>")[0] < theirs.eot_token
    ours.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == ours.fingerprint and loaded.encode("안녕 hi", "ko") == ours.encode(
        "안녕 hi", "ko"
    )
    assert ours.token_bytes()[theirs.n_vocab - 1 :].sum() == 0


@pytest.mark.parametrize("unit", [" ", "\n", "가", "!", " \t"])
def test_long_runs(pair, unit):
    text = unit * 200_000 + "end"
    assert pair[0].decode(pair[0].encode(text)) == text


def test_a_name_gives_one_object(ranks):
    assert len({id(open_tokenizer("gpt2")) for _ in range(2)}) == 1
    assert open_tokenizer(None) is Tokenizer.default()
