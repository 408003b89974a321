"""Detection on handwritten sentences, and the cuts of code-switched text."""

import re
import sys
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.tokenizer import language
from braingpt.tokenizer.language import HANGUL_LETTERS, LANGUAGES, detect, split

SENTENCES = {
    "ko": [
        "오늘은 날씨가 참 좋네요.",
        "GPU 메모리가 부족하면 batch size를 줄이세요.",
        "ㅋㅋㅋ 진짜?",
        "서울",
        "\u1109\u1165\u110b\u116e\u11af",
    ],
    "en": [
        "The weather is lovely this morning.",
        "How do I install the new version on Windows?",
        "She would rather have stayed at home.",
    ],
    "de": [
        "Das Wetter ist heute Morgen wunderschön.",
        "Wir müssen noch über den Preis sprechen.",
        "Ich weiß nicht, was du meinst.",
    ],
    "fr": [
        "Il fait très beau ce matin à Paris.",
        "Nous devons encore parler du prix.",
        "Je ne sais pas ce que tu veux dire.",
    ],
    "es": [
        "Esta mañana hace muy buen tiempo.",
        "Todavía tenemos que hablar del precio.",
        "No sé qué quieres decir con eso.",
    ],
    "it": [
        "Stamattina il tempo è bellissimo.",
        "Dobbiamo ancora parlare del prezzo.",
        "Non so che cosa vuoi dire con questo.",
    ],
}
CASES = [(code, text) for code, texts in SENTENCES.items() for text in texts]
OTHERS = [
    "O tempo está muito bom esta manhã, e amanhã também não vai chover em Lisboa.",
    "Het weer is vanochtend erg mooi en morgen gaat het waarschijnlijk ook niet regenen.",
    "Сегодня утром очень хорошая погода.",
    "今日はとてもいい天気です。",
    "今天早上天气很好。",
    "12:30 — 100 %",
    "",
]


@pytest.mark.parametrize(("code", "text"), CASES)
def test_the_six_languages(code, text):
    assert detect(text) == code


@pytest.mark.parametrize("text", OTHERS)
def test_other_languages_are_turned_away(text):
    assert detect(text) is None


def test_py3langid_stands_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "eldc", None)
    for cached in (language._wide_detector, language._narrow_detector):
        cached.cache_clear()
    try:
        right = sum(detect(text) == code for code, text in CASES)
        assert detect(OTHERS[0]) is None
        # It knows no n-gram of these, and all languages are as likely.
        assert [detect(text) for text in ("I", "OK", "A", "The", "Hi", "Ja", "x")] == [None] * 7
        assert detect("The cat") == "en" and detect("Bonjour", ("fr", "ko")) == "fr"
        assert split("OK")[0] == (None, "OK") and split("안녕. OK")[0][0] == "ko"
        assert language._wide_detector().__module__ == "braingpt.tokenizer.language"
        assert language.detectable("af") and not language.detectable("xx")
    finally:
        for cached in (language._wide_detector, language._narrow_detector):
            cached.cache_clear()
    assert right >= len(CASES) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("나는 Python을 좋아해요.", ["ko"]),
        ("GPT 모델은 크다", ["ko"]),
        ("Will.i.am이 부른 'Don't Cha'는 크게 유행했다", ["ko"]),
        ("Deep Learning 입문 강의를 들었다", ["ko"]),
        ("안녕하세요. Thank you very much for coming! 감사합니다.", ["ko", "en", "ko"]),
        ("회의는 tomorrow morning at nine 시작합니다.", ["ko", "en", "ko"]),
        ("I ate 김치 yesterday with my friends", ["en", "ko", "en"]),
        ("그는 말했다. Das ist eine sehr gute Idee, mein Freund.", ["ko", "de"]),
        ("The end.\n그리고 끝났다.\n123", ["en", "ko"]),
        ("123 ... !", [None]),
        ("  (1) 한국어", ["ko"]),
        ("", []),
    ],
)
def test_split(text, expected):
    pieces = split(text)
    assert [code for code, _ in pieces] == expected
    assert "".join(piece for _, piece in pieces) == text


def test_what_is_no_letter_stays_with_the_piece_before():
    assert split("안녕하세요! 1) Good morning to you all... 2) 네.") == [
        ("ko", "안녕하세요! 1) "),
        ("en", "Good morning to you all... 2) "),
        ("ko", "네."),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [(OTHERS[0], "pt"), (OTHERS[1], "nl"), (OTHERS[2], "ru"), (OTHERS[3], "ja"), ("Está bom, não é?", "pt")],
)
def test_more_languages_by_their_code(text, code):
    more = (*language.LANGUAGES, "pt", "nl", "ru", "ja")
    assert detect(text, more) == code
    assert all(detect(text, more) == expected for expected, text in CASES)
    assert detect("안녕하세요", ("en", "de")) is None


def test_split_cuts_at_another_script_only_where_it_is_wanted():
    text = "그는 말했다. Это очень хорошая идея, мой друг. The α value is 3."
    assert [code for code, _ in split(text, ("ko", "en", "ru"))] == ["ko", "ru", "en", None, "en"]
    assert [code for code, _ in split(text)] == ["ko", "en"]


def cuts_sentence_by_sentence(text: str) -> list[str]:
    """The scripts that `split` finds, by its definition: every sentence by itself."""
    found = []
    for sentence in re.split(r"(?<=[.!?…。])(?=\s)(?<!\s)|(?<=\n)", text):
        letters, hangul = (
            sum(map(len, re.findall(kind, sentence))) for kind in (r"[^\W\d_]", f"[{HANGUL_LETTERS}]")
        )
        for match in re.finditer(f"[{HANGUL_LETTERS}][^A-Za-zé]*|[A-Za-zé][^{HANGUL_LETTERS}]*", sentence):
            words = sum(bool(re.search("[A-Za-zé]", word)) for word in match.group().split())
            ko = match.group()[0] in "가나ㅋ" or (hangul and hangul >= 0.3 * letters and words <= 2)
            if not found or found[-1] != ("ko" if ko else "latin"):
                found.append("ko" if ko else "latin")
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["가", "나ㅋ ", "API ", "the cat ", "é", "漢字", "1_", ". ", ".", "! ", "\n", " ", "don't "]
        ),
        max_size=30,
    ).map("".join)
)
def test_counting_all_sentences_at_once_cuts_as_looking_at_each_does(text):
    cuts = language._cuts(text, LANGUAGES)
    assert [script for script, _ in cuts] == cuts_sentence_by_sentence(text)
    with mock.patch.object(language, "BLOCK", 5):
        assert language._cuts(text, LANGUAGES) == cuts


@settings(max_examples=300, deadline=None)
@given(st.text("한국 abcé.!\n1漢😀 ", max_size=60) | st.text(max_size=40))
def test_pieces_join_to_the_text_and_none_is_empty(text):
    for wanted in (language.LANGUAGES, ("ko", "ja", "pt")):
        pieces = split(text, wanted)
        assert "".join(piece for _, piece in pieces) == text
        assert all(piece and (code is None or code in wanted) for code, piece in pieces)


@pytest.mark.parametrize(
    "text",
    ["!안a " * 50_000, "." * 200_000 + "a", ".a" * 100_000, "안a" * 100_000, "\n" * 200_000],
    ids=lambda text: text[:4],
)
@pytest.mark.timeout(10)
def test_long_degenerate_text_takes_linear_time(text):
    assert "".join(piece for _, piece in split(text)) == text
