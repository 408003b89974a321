"""Cleaning: any form of a text gives the same text and the same ids, cleaning twice changes nothing more, and
what was changed is counted.
"""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braingpt.data.quality.clean import clean
from braingpt.data.quality.text_stats import HANGUL, JAMO, TextStats
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.cleaning import (
    FILLERS,
    NO_CHANGES,
    REMOVED,
    Changes,
    _is_clean,
    _kind_table,
    _removed,
    _runs,
    clean_counted,
    clean_text,
    compose,
)
from braingpt.tokenizer.language import detect, split

TOKENIZER = Tokenizer.default()
# Characters without a glyph that people's files hold.
GLYPHLESS = [*FILLERS, *"\u200b\u200e\u2060\u2063\ufeff\xad\u202a\u202e\x00\x08\x1b\x7f\x9f"]
SENTENCES = {
    "ko": "어제 저녁에는 동생과 함께 강가를 천천히 걸었다. 값이 싸다! ㅋㅋ",
    "en": "The naïve café owner’s cat didn't mind — 3½ miles.",
    "de": "Über Größe läßt sich streiten; „schön“ heißt schön.",
    "fr": "Où est l’élève ? Ça, c’était à Noël… très tôt.",
    "es": "¿Cuándo vendrá el niño? Mañana, según la pingüina.",
    "it": "Perché no? Così è più bello: città, virtù, caffè.",
}
letters = st.sampled_from("".join(SENTENCES.values()) + "\u1112\u1161\u11ab\u0301\u0323👩\u200d👧 \n漢")
texts = st.text(letters, max_size=40) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def ridden(text: str, fillers: list[str]) -> str:
    """The text with one of the fillers before, between and after its characters, where it is not empty."""
    return "".join(map("".join, zip(fillers, [*text, ""], strict=True)))


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
@pytest.mark.parametrize("filler", GLYPHLESS, ids=ascii)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_all_forms_of_a_sentence_have_the_same_ids(text, filler, form):
    formed = filler.join(unicodedata.normalize(form, text)) + filler
    for language in (None, "ko", "auto", "split"):
        expected = TOKENIZER.encode(text, language)
        assert TOKENIZER.encode(formed, language) == expected
    assert TOKENIZER.encode_array(formed).tolist() == TOKENIZER.encode(text)
    assert TOKENIZER.encode_batch([formed, text])[0] == TOKENIZER.encode(text)


@settings(max_examples=400, deadline=None)
@given(st.data(), texts, st.sampled_from(["NFC", "NFD"]))
def test_all_forms_of_any_text_have_the_same_ids(data, text, form):
    text = unicodedata.normalize(form, text)
    fillers = st.lists(st.sampled_from(["", "", *GLYPHLESS]), min_size=len(text) + 1, max_size=len(text) + 1)
    other = ridden(text, data.draw(fillers))
    expected = TOKENIZER.encode(unicodedata.normalize("NFC", text))
    assert TOKENIZER.encode(text) == TOKENIZER.encode(other) == expected
    assert TOKENIZER.encode(other, "split") == TOKENIZER.encode(text, "split")


@settings(max_examples=400, deadline=None)
@given(
    st.text(st.sampled_from([*GLYPHLESS, *"\r\n\x0b\u2028 가\u1100\u1161e\u0301\u0323\ud800\u0f73"])) | texts
)
@example("\r\u200b\n")
@example("e\u3164\u0301")
@example("\u0301\u0323" * 200)
def test_cleaning_twice_changes_nothing_more(text):
    for cleaning in (clean_text, clean):
        once = cleaning(text)
        assert cleaning(once) == once
        assert not _removed.search(once) and unicodedata.is_normalized("NFC", once)
    cleaned, changes = clean_counted(text)
    assert cleaned == clean_text(text) and bool(changes) == (cleaned != text)
    assert clean_counted(cleaned) == (cleaned, NO_CHANGES) and _is_clean(cleaned)
    assert clean_text(cleaned) is cleaned
    # Long texts are looked at in another way.
    long = text + "가나 " * 100
    assert (
        clean_text(long) == clean_text(text + " ")[:-1] + clean_text("가나 " * 100) or text[-1:] in "\u1100\r"
    )


@pytest.mark.parametrize(
    ("text", "cleaned", "changes"),
    [
        ("한글", "한글", NO_CHANGES),
        ("\u1112\u1161\u11ab글", "한글", Changes(composed=3)),
        ("가\u200b나\ufeff", "가나", Changes(invisible=2)),
        ("가\u3164나\u115f\u1160\uffa0", "가나", Changes(fillers=4)),
        ("가\udceb\ud800", "가", Changes(surrogates=2)),
        ("가\r\n나\r다\u2028", "가\n나\n다\n", Changes(line_ends=3)),
        ("a\u0301\u0323", "ạ\u0301", Changes(composed=2)),
        ("\u0301\u0323", "\u0323\u0301", Changes(composed=1)),
        # Kept, as emoji, Persian and German typesetting need them.
        ("👩\u200d👧 می\u200cخواهم ✌\ufe0f Auf\u200clage 1\u20e3", "", NO_CHANGES),
        # Kept: half-width and lone letters, full-width forms, spaces.
        ("ㅋㅋ ﾡ Ａ\u3000\xa0\t ", "", NO_CHANGES),
        # Old Hangul keeps its letters; only what stands for a missing one goes.
        ("\u1100\u119e\u115f\u1161\u1100\u1160\u11ab", "\u1100\u119e\u1161\u1100\u11ab", Changes(fillers=2)),
    ],
)
def test_what_is_changed_is_counted(text, cleaned, changes):
    assert clean_counted(text) == (cleaned or text, changes)


def test_changes_in_words():
    changes = Changes(composed=1_200, invisible=1) + Changes(fillers=2)
    assert changes.describe() == (
        "1,200 characters composed (NFC), 1 invisible character removed, 2 Hangul fillers removed"
    )
    assert changes.as_dict() == {
        "composed": 1200, "invisible": 1, "fillers": 2, "surrogates": 0, "line_ends": 0,
    }  # fmt: skip


def test_the_table_knows_what_the_expressions_know():
    """A text without characters of the table is in NFC, and every mark is one of a run."""
    table_C = _kind_table()
    seconds = {unicodedata.normalize("NFD", chr(code))[1:2] for code in range(0x110000)} - {""}
    for code in range(0x110000):
        char = chr(code)
        removed = bool(_removed.match(char))
        assert (table_C[code] == 1) == removed, hex(code)
        mark = unicodedata.combining(unicodedata.normalize("NFD", char)[0]) > 0
        assert not mark or _runs.match(char * 32), hex(code)
        unsure = mark or char in seconds or not unicodedata.is_normalized("NFC", char)
        assert removed or not unsure or table_C[code] == 2, hex(code)


@settings(max_examples=300, deadline=None)
@given(
    texts | st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.sampled_from(["NFC", "NFD"])
)
def test_short_and_long_texts_are_cleaned_alike(text, form):
    text = unicodedata.normalize(form, text)
    long = text + " 가나" * 400
    assert clean_text(long) == clean_text(text) + " 가나" * 400
    assert _is_clean(long) == _is_clean(text)


@pytest.mark.parametrize(
    "unit", ["\u0301\u0323", "\u0f73", "a\u0301\u0323", "한\u0301", "\u200b가", "\u1100"]
)
@pytest.mark.timeout(60)
def test_long_degenerate_text_takes_linear_time(unit):
    """`unicodedata` alone needs minutes for a hundred thousand marks in the wrong order."""
    cleaned = clean_text("가" + unit * 50_000)
    assert clean_text(cleaned) == cleaned
    assert clean_text("가" + unit * 300) == unicodedata.normalize(
        "NFC", "가" + unit.replace("\u200b", "") * 300
    )


def test_marks_in_any_order_are_composed_as_unicodedata_does():
    text = "e\u0301\u0323" + "\u0301\u0323\u0f73\U0001d165\u0344" * 40 + "가\u1161\u0300한" * 100
    assert compose(text) == unicodedata.normalize("NFC", text)


def test_a_filler_is_no_letter_in_no_language():
    for filler in FILLERS:
        stats = TextStats(f"가나 {filler} cat {filler}{filler}")
        assert (stats.counts[HANGUL], stats.counts[JAMO], stats.letters) == (2, 0, 5)
        assert detect(filler * 30) is None and detect(f"The weather is lovely {filler * 30}") == "en"
        for languages in (("ko", "en"), ("ko", "en", "ja")):
            assert [piece for _, piece in split(f"The wea{filler}ther is lovely", languages)] == [
                f"The wea{filler}ther is lovely"
            ]
            assert [code for code, _ in split(f"오늘{filler}은 {filler} 날씨가 좋다", languages)] == ["ko"]
    assert all(filler in REMOVED for filler in FILLERS)
    ids = TOKENIZER.encode("The wea\u3164ther is lovely. 날\u1160씨가 좋다.", "split")
    assert ids == TOKENIZER.encode("The weather is lovely. 날씨가 좋다.", "split")


@pytest.mark.parametrize(
    ("text", "what"), [("가\udceb나", "at character 1; byte 0xEB is not UTF-8"), ("\ud800", "U\\+D800")]
)
def test_broken_text_is_refused_where_it_is_read(text, what):
    from braingpt.errors import UserError

    for encode in (TOKENIZER.encode, TOKENIZER.encode_array, lambda text: TOKENIZER.encode_batch([text])):
        with pytest.raises(UserError, match=what):
            encode(text)


def test_looking_for_something_to_clean_costs_little_of_encoding():
    """A loose bound; the page of decisions has the measurement."""
    text = SENTENCES["ko"] * 5_000

    looking = min(_timed(lambda: clean_text(text)) for _ in range(5))
    assert looking < 0.2 * min(_timed(lambda: TOKENIZER.encode_array(text)) for _ in range(2))


def _timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
