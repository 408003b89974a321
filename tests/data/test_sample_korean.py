"""Korean in the sample corpus: particles, endings, numerals and styles."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.data.sample.korean import polite
from braingpt.data.sample.korean_facts import native
from braingpt.data.sample.korean_grammar import (
    PARTICLES,
    Person,
    Word,
    attach,
    conjugate,
    number,
    read_number,
)
from braingpt.data.sample.texts import table, words


def _closed(syllable: str) -> bool:
    """Independent of the code under test: decomposed, an open syllable has two jamo, a closed one three."""
    return len(unicodedata.normalize("NFD", syllable)) == 3


def _rieul(syllable: str) -> bool:
    return unicodedata.normalize("NFD", syllable)[-1] == "\u11af"


def _check_particles(noun: str) -> None:
    last = noun[-1]
    for particle, (closed, opened) in PARTICLES.items():
        expected = opened if not _closed(last) or (particle == "으로" and _rieul(last)) else closed
        assert f"{Word(noun):{particle}}" == noun + expected
    assert f"{Word(noun):에서}" == noun + "에서"


def test_particles_after_every_noun_of_the_lists() -> None:
    nouns = [
        word
        for key, group in words("ko").items()
        if "play" not in key and key not in ("continents", "neutral", "coffees")
        for word in group
    ]
    nouns += [
        row[0]
        for name in ("trips", "dishes", "jobs", "broken", "animals", "skills", "terms")
        for row in table("ko", name)
    ]
    nouns += [name for row in table("world", "capitals") for name in row[1:3]]
    assert len(nouns) > 500
    for noun in nouns:
        _check_particles(noun)


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=4))
@settings(max_examples=60)
def test_particles_after_any_hangul(noun: str) -> None:
    _check_particles(noun)


def test_particles_of_names_numbers_and_foreign_words() -> None:
    friendly, plain, vowel = Person("지훈", True), Person("지훈", False), Person("민서", True)
    assert [f"{friendly:{p}}" for p in ("은", "이", "을", "과", "에게", "아", "네", "이야")] == (
        ["지훈이는", "지훈이가", "지훈이를", "지훈이와", "지훈이에게", "지훈아", "지훈이네", "지훈이야"]
    )
    assert [f"{plain:{p}}" for p in ("은", "이", "을", "과", "아", "네")] == [
        "지훈은",
        "지훈이",
        "지훈을",
        "지훈과",
        "지훈아",
        "지훈이네",
    ]
    assert [f"{vowel:{p}}" for p in ("은", "이", "아", "네")] == ["민서는", "민서가", "민서야", "민서네"]
    assert [f"{number(n):은}" for n in (1, 2, 6, 10, 12, 100)] == [
        "1은",
        "2는",
        "6은",
        "10은",
        "12는",
        "100은",
    ]
    assert f"{Word('API', '에이피아이'):을} {Word('Python', '파이썬'):은}" == "API를 Python은"
    assert (attach("서울", "으로"), attach("부산", "으로"), attach("대구", "으로")) == (
        "서울로",
        "부산으로",
        "대구로",
    )
    assert [read_number(n) for n in (0, 10, 11, 105, 2030, 9999)] == [
        "영",
        "십",
        "십일",
        "백오",
        "이천삼십",
        "구천구백구십구",
    ]
    assert [native(n) for n in (1, 2, 10, 13, 20, 21, 40)] == [
        "한",
        "두",
        "열",
        "열세",
        "스무",
        "스물한",
        "마흔",
    ]
    with pytest.raises(ValueError, match="sound"):
        attach("API", "을")


@pytest.mark.parametrize(
    ("base", "forms"),
    [
        ("가다", "가서 갔다 가요 가고 가면 간 갈 가는 간다 갑니다"),
        (
            "책을 읽다",
            "책을 읽어서 책을 읽었다 책을 읽어요 책을 읽고 책을 읽으면 책을 읽은 책을 읽을 책을 읽는 책을 "
            "읽는다 책을 읽습니다",
        ),
        ("보다", "봐서 봤다 봐요 보고 보면 본 볼 보는 본다 봅니다"),
        ("배우다", "배워서 배웠다 배워요 배우고 배우면 배운 배울 배우는 배운다 배웁니다"),
        ("마시다", "마셔서 마셨다 마셔요 마시고 마시면 마신 마실 마시는 마신다 마십니다"),
        ("되다", "돼서 됐다 돼요 되고 되면 된 될 되는 된다 됩니다"),
        ("하다", "해서 했다 해요 하고 하면 한 할 하는 한다 합니다"),
        ("만들다", "만들어서 만들었다 만들어요 만들고 만들면 만든 만들 만드는 만든다 만듭니다"),
        ("놀다", "놀아서 놀았다 놀아요 놀고 놀면 논 놀 노는 논다 놉니다"),
        ("걷다", "걸어서 걸었다 걸어요 걷고 걸으면 걸은 걸을 걷는 걷는다 걷습니다"),
        ("돕다", "도와서 도왔다 도와요 돕고 도우면 도운 도울 돕는 돕는다 돕습니다"),
        ("줍다", "주워서 주웠다 주워요 줍고 주우면 주운 주울 줍는 줍는다 줍습니다"),
        ("입다", "입어서 입었다 입어요 입고 입으면 입은 입을 입는 입는다 입습니다"),
        ("짓다", "지어서 지었다 지어요 짓고 지으면 지은 지을 짓는 짓는다 짓습니다"),
        ("부르다", "불러서 불렀다 불러요 부르고 부르면 부른 부를 부르는 부른다 부릅니다"),
        ("따르다", "따라서 따랐다 따라요 따르고 따르면 따른 따를 따르는 따른다 따릅니다"),
        ("쓰다", "써서 썼다 써요 쓰고 쓰면 쓴 쓸 쓰는 쓴다 씁니다"),
    ],
)
def test_verbs(base: str, forms: str) -> None:
    endings = ["어서", "었다", "어요", "고", "으면", "은", "을", "는", "는다", "습니다"]
    assert " ".join(conjugate(base, ending) for ending in endings) == forms


def test_adjectives() -> None:
    cases = {
        "바쁘다": "바쁜 바빴다 바빠요",
        "빨갛다": "빨간 빨갰다 빨개요",
        "하얗다": "하얀 하얬다 하얘요",
        "춥다": "추운 추웠다 추워요",
        "길다": "긴 길었다 길어요",
    }
    for base, forms in cases.items():
        assert " ".join(conjugate(base, ending) for ending in ("은", "었다", "어요")) == forms


def test_narration_turns_polite_outside_quotes() -> None:
    plain = '민서가 왔다. "나는 간다." 민서가 말했다. 집에 없었다.'
    assert polite(plain, "어요") == '민서가 왔어요. "나는 간다." 민서가 말했어요. 집에 없었어요.'
    assert polite(plain, "습니다") == '민서가 왔습니다. "나는 간다." 민서가 말했습니다. 집에 없었습니다.'
    assert polite(plain, "다") == plain
