"""Properties of cleaning and judging over any text, and the rate of false drops on real text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braingpt.data.document import Document
from braingpt.data.quality.clean import clean, repair
from braingpt.data.quality.text_stats import TextStats
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.language import LANGUAGES
from tests.data.test_quality_rules import GOOD, judge

SOME = st.sampled_from(
    [
        "\n",
        " \n",
        "\t",
        "\r\n",
        "\u200b",
        "\u0301",
        "e",
        "\u1112\u1161",
        "ㅋ",
        "\ud800",
        "\xa0",
        "\x00",
        "\u2028",
        "가",
        "the ",
    ]
)
TEXT = st.lists(st.text(max_size=12) | SOME | st.sampled_from(list(GOOD.values())), max_size=12).map("".join)
JUDGE = judge()


@given(TEXT)
@example("a\u200b\u0301 \n\n \n\n b")
@example("\r\u200b\n" * 5)
@settings(max_examples=150, deadline=None)
def test_cleaning_is_idempotent_and_the_judge_cleans_alike(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    judged = JUDGE.judge_text(Document(text, "en", "test", "1"))
    assert judged.rule == "empty" if not once else judged.text in (once, clean(judged.text))
    if judged.rule is None:
        assert "".join(piece for _, piece in judged.segments) == judged.text
        again = JUDGE.judge_text(Document(judged.text, "en", "test", "1"))
        assert again == judged


@given(st.lists(TEXT, max_size=4), TEXT, st.sampled_from(LANGUAGES))
@settings(max_examples=40, deadline=None)
def test_a_verdict_does_not_depend_on_what_was_judged_before(
    before: list[str], text: str, language: str
) -> None:
    document = Document(text, language, "test", "1")
    alone = judge().judge_text(document)
    for other in before:
        JUDGE.judge_text(Document(other, language, "test", "2"))
    assert JUDGE.judge_text(document) == alone


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_the_text(text: str) -> None:
    text = clean(text)
    stats = TextStats(text)
    assert stats.visible == sum(not character.isspace() for character in text)
    assert stats.letters >= sum(
        character.isalpha()
        for character in text
        if ord(character) < 0x30000 and not "\uffa0" <= character <= "\uffdc"
    )


def test_mojibake_is_repaired_on_demand() -> None:
    for language in ("fr", "ko"):
        broken = GOOD[language].encode().decode("latin-1")
        assert repair(broken) == GOOD[language] and repair(GOOD[language]) == GOOD[language]
        assert (
            judge(normalise={"mojibake": True}).judge_text(Document(broken, language, "test", "1")).text
            == GOOD[language]
        )


def test_lone_korean_letters_stay_apart() -> None:
    """NFKC, unlike NFC, would make 감삯 and 너묷 of the first two words."""
    assert clean("감사ㄳ 너무ㄳ ㅋㅋ") == "감사ㄳ 너무ㄳ ㅋㅋ"


def test_a_line_of_a_million_spaces_costs_no_more_than_one_of_letters() -> None:
    assert clean("a" + " " * 1_000_000 + "b\n" + " " * 1_000_000) == "a" + " " * 1_000_000 + "b"


@pytest.mark.parametrize(
    ("language", "file", "column"),
    [
        ("ko", "KorQuAD/squad_kor_v1/squad_kor_v1/validation-00000-of-00001.parquet", "context"),
        ("en", "HuggingFaceFW/fineweb/sample/10BT/000_00000.parquet", "text"),
        ("de", "HuggingFaceFW/fineweb-2/data/deu_Latn/train/000_00000.parquet", "text"),
        ("fr", "HuggingFaceFW/fineweb-2/data/fra_Latn/train/000_00000.parquet", "text"),
        ("es", "HuggingFaceFW/fineweb-2/data/spa_Latn/train/000_00000.parquet", "text"),
        ("it", "HuggingFaceFW/fineweb-2/data/ita_Latn/train/000_00000.parquet", "text"),
    ],
)
def test_few_clean_documents_are_dropped(corpora: Path, language: str, file: str, column: str) -> None:
    import pyarrow.parquet

    texts = pyarrow.parquet.read_table(corpora / file, columns=[column])[column].to_pylist()
    texts = texts[:: 8 if len(texts) > 800 else 1]
    dropped = 0
    for text in texts:
        judged = JUDGE.judge_text(Document(text, language, "test", "1"))
        dropped += bool(judged.rule or JUDGE.judge_tokens(language, Tokenizer.default().encode(judged.text)))
    assert dropped <= 0.06 * len(texts)


def test_punctuation_after_an_accented_letter_is_no_mojibake() -> None:
    from braingpt.data.quality.clean import MOJIBAKE

    for good in ("„heiß“", "«CAFÉ»", "« déjà… »", "«perché…»", "voilà—", "”Ö”"):
        assert not MOJIBAKE.search(good), good
    for text in ("안녕하세요", "é", "Größe", "¿Dónde?", "“"):
        assert MOJIBAKE.search(text.encode().decode("latin-1")), text


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.sampled_from("ÃÂäïðÿ€“™\x80\xbf\xc0가a"), st.characters()), max_size=8))
def test_the_look_before_the_search_for_mojibake_misses_none(text: str) -> None:
    from braingpt.data.quality.clean import MOJIBAKE
    from braingpt.data.quality.rules import _may_be_mojibake

    assert _may_be_mojibake(np.array([*map(ord, text)], np.uint32)) or not MOJIBAKE.search(text)
