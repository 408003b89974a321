"""Training: exact size, the same result every time, NFC; and what the shipped vocabulary promises on real
text.
"""

import hashlib
import json
import unicodedata
from functools import cache

import pytest
import rustbpe
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import clean_text
from braingpt.tokenizer.report import as_json, hangul_alone, measure
from braingpt.tokenizer.training import train
from braingpt.tokenizer.vocabulary import PATTERN

TEXTS = [
    "대한민국의 수도는 서울이다. 서울의 인구는 약 천만 명이다. " * 20,
    "the cat sat on the mat, and the dog sat on the cat. " * 20,
]


def test_size_and_round_trip():
    tokenizer = train(TEXTS, 300)
    assert len(tokenizer.entries) == 300 and tokenizer.vocab_size == 364 and tokenizer.eot == 300
    assert sorted(tokenizer.entries[:256]) == [bytes([value]) for value in range(256)]
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]
    assert len(tokenizer.encode(TEXTS[0])) < 0.6 * len(TEXTS[0].encode())


def test_same_text_same_vocabulary_whatever_its_form():
    decomposed = [unicodedata.normalize("NFD", text) for text in TEXTS]
    assert decomposed != TEXTS
    assert train(TEXTS, 300).fingerprint == train(iter(decomposed), 300).fingerprint


def test_a_broken_surrogate_in_the_corpus_does_no_harm():
    assert len(train([*TEXTS, "가\ud83d나"], 280).entries) == 280


def test_too_little_text_or_too_small_a_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"yields only \d+ entries"):
        train(["짧다"], 1000)
    with pytest.raises(UserError, match="at least 256"):
        train(TEXTS, 100)


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
    | st.text("대한민국 서울의 the cat.\n1é", max_size=80)
)
def test_the_trainer_and_tiktoken_give_the_same_ids(text):
    trainer, tokenizer = _both()
    assert trainer.encode(clean_text(text)) == tokenizer.encode(text)


@cache
def _both():
    """rustbpe's own tokenizer, and ours from the same texts."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(TEXTS), 310, pattern=PATTERN)
    return trainer, train(TEXTS, 310)


def test_report_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    text = "오늘은 날씨가 참 좋네요. 뷁"
    rows, absent = measure(
        [("a", text), ("a", text), ("b", "The weather is lovely this morning.")], Tokenizer.default()
    )
    assert absent == ["gpt2", "cl100k_base", "o200k_base"]
    assert [(row.name, row.language, row.texts) for row in rows] == [("a", "ko", 2), ("b", "en", 1)]
    assert (rows[0].characters, rows[0].bytes, rows[0].words, rows[0].syllables) == (
        2 * len(text),
        2 * len(text.encode()),
        10,
        22,
    )
    tokens = 2 * len(Tokenizer.default().encode(text))
    figures = rows[0].figures("braingpt")
    assert (figures["tokens"], figures["tokens_per_word"]) == (tokens, tokens / 10)
    assert figures["characters_per_token"] == pytest.approx(2 * len(text) / tokens)
    assert figures["whole_syllables"] == 20 / 22, "the rare syllable is spelled in bytes"
    broken = sum(_broken(Tokenizer.default().token(token)) for token in Tokenizer.default().encode(text))
    assert broken >= 2 and figures["byte_fallback"] == pytest.approx(2 * broken / tokens)
    assert rows[1].figures("braingpt")["whole_syllables"] is None and figures["mb_per_second"] > 0
    written = json.loads(json.dumps(as_json(rows, absent)))
    assert written["rows"][0]["encodings"]["braingpt"]["tokens"] == tokens
    assert 0.2 < written["hangul_alone"]["braingpt"]["common"] < 1


def _broken(entry):
    try:
        return not entry.decode()
    except UnicodeDecodeError:
        return True


def test_hangul_alone_counts_syllables():
    bytes_only = Tokenizer([bytes([value]) for value in range(256)])
    assert hangul_alone(bytes_only) == {"all": 0.0, "common": 0.0}
    with_one = Tokenizer([*bytes_only.entries, "가".encode()[:2], "가".encode()])
    assert hangul_alone(with_one) == {"all": 1 / 11_172, "common": 1 / 2_350}


NLI = "klue/klue/nli/validation-00000-of-00001.parquet"
PARALLEL = "Moo/korean-parallel-corpora/data/validation-00000-of-00001.parquet"
REVIEWS = "e9t/nsmc/data/validation-00000-of-00001.parquet"
# Of the generated corpora: sha256 of the texts, and their tokens in cl100k_base and o200k_base.
# The tokens were counted with tiktoken and its real rank files.
COUNTED = {
    NLI: ("24d03ba25ff8f5c6", 6_394, 4_117),
    PARALLEL: ("b7f6e30d66320126", 1_985, 1_278),
    REVIEWS: ("4b1f4521b73617f7", 5_191, 3_345),
}


def _texts(folder, file, column):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / file, columns=[column])[column].to_pylist()[:300]


def _tokens(encoding, texts):
    return sum(map(len, tiktoken.get_encoding(encoding).encode_ordinary_batch(texts)))


@pytest.mark.parametrize(("file", "column"), [(NLI, "premise"), (PARALLEL, "ko"), (REVIEWS, "text")])
def test_korean_costs_no_more_than_in_o200k_and_far_less_than_in_cl100k(
    ranks, corpora, generated, file, column
):
    texts = _texts(generated, file, column)
    mark, cl100k, o200k = COUNTED[file]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == mark, (
        "other texts: count their tokens again"
    )
    ours = sum(map(len, Tokenizer.default().encode_batch(texts)))
    assert ours < o200k and ours < 0.6 * cl100k
    if ranks:
        assert (_tokens("cl100k_base", texts), _tokens("o200k_base", texts)) == (cl100k, o200k)
        texts = _texts(corpora, file, column)
        ours = sum(map(len, Tokenizer.default().encode_batch(texts)))
        assert ours < _tokens("o200k_base", texts) and ours < 0.6 * _tokens("cl100k_base", texts)
