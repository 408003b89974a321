"""Training: exact size, the same result every time, NFC; and what the shipped vocabulary promises on real text."""

import json
import unicodedata
from pathlib import Path

import pytest
import tiktoken

from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.report import as_json, measure
from braingpt.tokenizer.training import train

TEXTS = ["대한민국의 수도는 서울이다. 서울의 인구는 약 천만 명이다. " * 20, "the cat sat on the mat, and the dog sat on the cat. " * 20]
CORPORA = Path("../shared/corpora")
RANKS = Path("../shared/tiktoken-cache")


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


def test_report_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    text = "오늘은 날씨가 참 좋네요."
    rows, absent = measure([("a", text), ("a", text), ("b", "The weather is lovely this morning.")], Tokenizer.default())
    assert absent == ["gpt2", "cl100k_base", "o200k_base"]
    assert [(row.name, row.language, row.texts) for row in rows] == [("a", "ko", 2), ("b", "en", 1)]
    assert rows[0].characters == 2 * len(text) and rows[0].bytes == 2 * len(text.encode())
    tokens = 2 * len(Tokenizer.default().encode(text))
    assert rows[0].per_token("braingpt") == (rows[0].bytes / tokens, rows[0].characters / tokens)
    assert json.loads(json.dumps(as_json(rows, absent)))["rows"][0]["tokens"] == {"braingpt": tokens}


@pytest.mark.skipif(not (CORPORA.is_dir() and RANKS.is_dir()), reason="needs the development corpora and tiktoken's rank files")
@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("klue/klue/nli/validation-00000-of-00001.parquet", "premise"),
        ("Moo/korean-parallel-corpora/data/validation-00000-of-00001.parquet", "ko"),
        ("e9t/nsmc/data/validation-00000-of-00001.parquet", "text"),
    ],
)
def test_korean_costs_no_more_than_in_o200k_and_far_less_than_in_cl100k(monkeypatch, file, column):
    import pyarrow.parquet

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(RANKS))
    texts = pyarrow.parquet.read_table(CORPORA / file, columns=[column])[column].to_pylist()[:300]
    ours, cl100k, o200k = (
        sum(map(len, batch))
        for batch in (
            Tokenizer.default().encode_batch(texts),
            tiktoken.get_encoding("cl100k_base").encode_ordinary_batch(texts),
            tiktoken.get_encoding("o200k_base").encode_ordinary_batch(texts),
        )
    )
    assert ours < o200k and ours < 0.6 * cl100k
