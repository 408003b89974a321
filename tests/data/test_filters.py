"""Cleaning, quality rules and deduplication."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.dedup import Seen, content_hash, held_out
from braingpt.data.document import Document
from braingpt.data.filters import Filters, clean, verdict

KOREAN = "인공지능은 사람이 만든 기계가 배우고 생각하는 힘을 말한다. 오늘날 많은 연구자가 더 작은 모형으로 같은 일을 하려고 애쓴다."
ENGLISH = "Small models learn from little text, and every number that is written about them should be true and easy to repeat."
GERMAN = "Die Geschwindigkeitsbegrenzung auf den Bundesautobahnen bleibt ein Gegenstand der öffentlichen Auseinandersetzung in Deutschland."


@pytest.mark.parametrize(("text", "language"), [(KOREAN, "ko"), (ENGLISH, "en"), (GERMAN, "de"), ("나는 오늘 학교에 갔다.", "ko")])
def test_good_text_passes(text: str, language: str) -> None:
    assert verdict(clean(text), language) is None


@pytest.mark.parametrize(
    ("text", "language", "rule"),
    [
        ("짧다.", "ko", "too short"),
        ("Hello there.", "en", "too short"),
        ("2019-01-02 | 3,141 | 2,718 | 99.2 % | -- | 12:30:55 x", "en", "few letters"),
        ("가나다라마바사아자차카타파하" * 10 + " " + " ".join(["가나다라마바사아자차카타파"] * 12), "ko", "word length"),
        (" ".join("한글자씩띄어쓴글은글이아니다" * 2), "ko", "word length"),
        ("이 영화는 정말 재미있다 " + "ㅋㅋㅠ " * 10, "ko", "lone jamo"),
        ("이 영화 정말 좋다 " + "하" * 40, "ko", "repetition"),
        ("\n".join(["The same line of text is here again."] * 6 + [ENGLISH]), "en", "repetition"),
    ],
)
def test_bad_text_is_named_by_its_rule(text: str, language: str, rule: str) -> None:
    assert verdict(clean(text), language) == rule


def test_korean_bounds_are_not_the_english_ones() -> None:
    spaced = "나는 그 책을 모두 읽고 다시 새 책을 샀고 집에 와서 잘 잤다 그날 밤에 꿈을 꿨다"
    assert verdict(spaced, "ko") is None
    assert verdict(spaced, "en") == "word length"


def test_clean() -> None:
    assert clean(unicodedata.normalize("NFD", "한국어")) == "한국어"
    assert clean("\ufeffa\x00b\u200bc\ud800 \r\n\r\n\n\n\nd \t\n ") == "abc\n\nd"
    assert clean("    x = 1\n    y = 2") == "x = 1\n    y = 2"


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_clean_is_idempotent_and_encodable(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    once.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from(["ko", "en", "de"]))
def test_verdict_never_fails(text: str, language: str) -> None:
    if clean(text):
        verdict(clean(text), language)


def test_every_drop_is_counted_by_rule() -> None:
    filters = Filters(["ko", "en"], lambda text: "pt" if "não" in text else "en")
    texts = ["", "x", ENGLISH, "não sei o que dizer sobre isto", "y", "z", "w"]
    kept = [filters.apply(Document(text, None, "text", str(number))) for number, text in enumerate(texts)]
    assert [document.language for document in kept if document] == ["en"]
    filters.broken("broken row", "{")
    report = filters.report()
    assert (report["read"], report["kept"]) == (8, 1)
    counts = {rule: facts["documents"] for rule, facts in report["dropped"].items()}
    assert counts == {"too short": 4, "empty": 1, "language": 1, "broken row": 1}
    assert report["dropped"]["too short"]["samples"] == ["x", "y", "z"]
    assert report["dropped"]["language"]["samples"] == ["[pt] não sei o que dizer sobre isto"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=400))
def test_seen_agrees_with_a_set(values: list[int]) -> None:
    seen, reference = Seen(), set()
    for value in values:
        assert seen.add(value) == (value not in reference)
        reference.add(value)
    assert len(seen) == len(reference)


def test_seen_across_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braingpt.data.dedup._RECENT", 7)
    seen = Seen()
    values = [content_hash(str(number)) for number in range(500)]
    assert all(seen.add(value) for value in values)
    assert not any(seen.add(value) for value in reversed(values))
    assert len(seen) == 500


def test_hash_ignores_case_and_whitespace_only() -> None:
    assert content_hash("Ein  Wort\n hier") == content_hash("ein wort HIER")
    assert content_hash("ein wort hier") != content_hash("ein wort, hier")
    held = sum(held_out(content_hash(str(number)), 0.05) for number in range(4000))
    assert 140 < held < 260
