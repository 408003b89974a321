"""Each rule drops what it should, can be switched off, and lets good text of every language pass."""

import unicodedata
from pathlib import Path

import pytest

from braingpt.data.document import Document
from braingpt.data.quality import Judge, load_quality
from braingpt.data.quality.config import QualityConfig, check_quality
from braingpt.data.quality.contamination import _grams_of_texts
from braingpt.errors import UserError
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.language import LANGUAGES

GOOD = {
    "ko": (
        "서울은 대한민국의 수도이자 가장 큰 도시이다. 한강이 도시의 한가운데를 지나가며, 북쪽에는 북한산이 "
        "있고 남쪽에는 관악산이 있다. 조선이 세워진 뒤 육백 년이 넘도록 나라의 중심이었고, 지금은 천만 "
        "명에 가까운 사람들이 이곳에서 살아가고 있다. 봄에는 벚꽃이 피고 가을에는 단풍이 든다."
    ),
    "en": (
        "The library opened in the spring of 1923, when the town had barely four thousand people. Its "
        "first keeper, a retired teacher, bought the books with her own money and lent them to anyone who "
        "could write their name. It has been open every day since then."
    ),
    "de": (
        "Die Bibliothek wurde im Frühjahr 1923 eröffnet, als die Stadt kaum viertausend Einwohner hatte. "
        "Ihre erste Leiterin war eine pensionierte Lehrerin, die die Bücher von ihrem eigenen Geld kaufte "
        "und sie jedem lieh, der seinen Namen schreiben konnte."
    ),
    "fr": (
        "La bibliothèque a ouvert au printemps de 1923, quand la ville comptait à peine quatre mille "
        "habitants. Sa première directrice, une institutrice à la retraite, achetait les livres avec son "
        "propre argent et les prêtait à tous ceux qui savaient écrire leur nom."
    ),
    "es": (
        "La biblioteca abrió en la primavera de 1923, cuando la ciudad apenas tenía cuatro mil habitantes. "
        "Su primera directora, una maestra jubilada, compraba los libros con su propio dinero y los "
        "prestaba a todo el que supiera escribir su nombre."
    ),
    "it": (
        "La biblioteca fu aperta nella primavera del 1923, quando la città contava appena quattromila "
        "abitanti. La sua prima direttrice, una maestra in pensione, comprava i libri con il proprio "
        "denaro e li prestava a chiunque sapesse scrivere il proprio nome."
    ),
}
_WORDS = GOOD["en"].split()
_VARIED = "\n".join(
    f"{number}. {' '.join(_WORDS[number : number + 8])} of the year {1900 + number}" for number in range(20)
)

# rule, its settings or None for the shipped ones, language, a text that breaks it and no rule before it
BAD = [
    ("short", None, "en", "Too short."),
    ("few letters", None, "en", "1234 5678 (12.5) 99, 17; 2024-11-03 18:00 -- 22:30 the 7 of 9"),
    ("other script", None, "en", "Москва является столицей России и крупнейшим городом страны, and more."),
    ("damage", None, "en", GOOD["en"] + " caf\ufffd na\ufffdve r\ufffdle d\ufffdj\ufffd"),
    ("damage", None, "fr", GOOD["fr"].encode().decode("cp1252", errors="ignore")),
    (
        "word length",
        None,
        "en",
        " ".join(["Donaudampfschifffahrtsgesellschaft"] * 6 + ["Rindfleischetikettierung"] * 6),
    ),
    ("lone jamo", None, "ko", "재미있다 ㅋㅋㅋㅋㅋㅋㅋㅋ 정말 최고 ㅠㅠㅠㅠㅠㅠㅠㅠ 또 보고 싶다"),
    (
        "symbols",
        None,
        "en",
        "== some words of text | and more || words [of] text == and " * 3
        + "@@@@@@@@@@@@@@@@@@ $$$$$$$$$$$$$$$ ^^^^^^^^^^^^^^^^^^^^^^",
    ),
    ("symbols", None, "en", " ".join(f"#{word.strip('.,')}" for word in _WORDS)),
    ("repeated letters", None, "en", "This is sooooooooooo goooooooooood and greeeeeeeeeeat, thank you."),
    (
        "stop words",
        None,
        "en",
        " ".join(f"{word.strip('.,')} bananas" for word in _WORDS if len(word) > 5)
        + " kettle lamp table chair window door floor" * 1
        + " carpet curtain spoon fork knife plate glass bottle basket",
    ),
    (
        "endings",
        None,
        "ko",
        "사과 바나나 포도 수박 참외 딸기 감자 양파 당근 오이 배추 무청 시금치 콩나물 숙주 버섯 호박 가지 "
        "토란 연근 우엉 생강 마늘 대파 쪽파 부추",
    ),
    ("bullets", None, "en", "\n".join(f"- {line}" for line in _VARIED.split("\n"))),
    ("ellipses", None, "en", "\n".join(f"{line} ..." for line in _VARIED.split("\n"))),
    (
        "short lines",
        {"share": 0.67, "characters": 30, "lines": 6},
        "en",
        "\n".join(" ".join(_WORDS[i : i + 4]) for i in range(0, 32, 4)),
    ),
    ("unfinished lines", {"share": 0.88, "lines": 6}, "en", _VARIED),
    (
        "repeated lines",
        None,
        "en",
        "\n".join(
            [GOOD["en"], "Read more about the town.", *["Read more about the towns and the people here."] * 9]
        ),
    ),
    (
        "repeated paragraphs",
        None,
        "en",
        "\n\n".join(["\n".join(word for word in _WORDS if len(word) < 8)] * 2),
    ),
    ("top ngram", None, "en", " ".join(f"good morning {word}" for word in _WORDS)),
    ("repeated ngrams", None, "en", " ".join([GOOD["en"]] * 3)),
    ("placeholder", None, "en", GOOD["en"] + " Lorem ipsum dolor sit amet."),
    (
        "boilerplate",
        None,
        "en",
        "We use cookies to give you the best of our site.\nThe town has a library.\nAll rights reserved by "
        "the owners.",
    ),
]


def judge(**over: object) -> Judge:
    return Judge(config(**over), LANGUAGES, Tokenizer.default().fingerprint)


def config(**over: object) -> QualityConfig:
    tree = load_quality().model_dump()
    return check_quality({**tree, **over})


@pytest.fixture(scope="module")
def shipped() -> Judge:
    return judge()


def rule_of(judge: Judge, text: str, language: str | None) -> str | None:
    judged = judge.judge_text(Document(text, language, "test", "1"))
    return judged.rule or judge.judge_tokens(judged.language, Tokenizer.default().encode(judged.text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_good_text_passes_and_its_language_is_found(shipped: Judge, language: str) -> None:
    assert rule_of(shipped, GOOD[language], language) is None
    judged = shipped.judge_text(Document(GOOD[language], None, "test", "1"))
    assert judged == (GOOD[language], language, [(language, GOOD[language])], None)


@pytest.mark.parametrize(
    ("rule", "values", "language", "text"), BAD, ids=[f"{bad[0]}-{number}" for number, bad in enumerate(BAD)]
)
def test_each_rule_drops_what_it_should_and_can_be_switched_off(
    rule: str, values: dict | None, language: str, text: str
) -> None:
    key = rule.replace(" ", "_")
    on = judge(**({key: values} if values else {}))
    assert on.judge_text(Document(text, language, "test", "1")).rule == rule
    assert judge(**{key: False}).judge_text(Document(text, language, "test", "1")).rule != rule


def test_a_language_that_is_not_wanted_is_dropped_by_that_rule() -> None:
    only = Judge(load_quality(), ["ko"], Tokenizer.default().fingerprint)
    assert only.judge_text(Document(GOOD["fr"], None, "test", "1")).rule == "language"
    assert only.judge_text(Document(" \n\t\u200b", "ko", "test", "1")).rule == "empty"


def test_detecting_overrules_the_source_only_where_it_is_not_trusted() -> None:
    document = Document(GOOD["de"], "en", "test", "1")
    assert judge(language={"trust_source": False}).judge_text(document).language == "de"
    # believed to be English, and then found not to read like it
    assert judge().judge_text(document).rule == "stop words"


def test_boilerplate_lines_are_cut_out_of_a_page_that_is_kept(shipped: Judge) -> None:
    judged = shipped.judge_text(
        Document(f"Skip to main content\n\n{GOOD['en']}\n\nThis site uses cookies.", "en", "test", "1")
    )
    assert judged.rule is None and judged.text == GOOD["en"]


def test_code_switched_text_is_cut_where_the_language_really_changes(shipped: Judge) -> None:
    english = "The library was opened in the spring, and it has been open to all of us. "
    text = f"{GOOD['ko']} {english}그래서 우리는 모두 새 도서관에 가 보았다."
    segments = shipped.judge_text(Document(text, "ko", "test", "1")).segments
    assert [language for language, _ in segments] == ["ko", "en", "ko"] and "".join(
        piece for _, piece in segments
    ) == text
    named = (
        GOOD["ko"]
        + " CWnd::OnCreate printf wprintf HeapAlloc 함수를 호출한다. 그리고 Visual Studio Code Editor 를 "
        "연다."
    )
    assert len(shipped.judge_text(Document(named, "ko", "test", "1")).segments) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lone_jam: false", "unknown quality setting 'lone_jam'; did you mean 'lone_jamo'"),
        ("short: {character: 5}", "unknown quality setting 'short.character'; did you mean 'characters'"),
        ("few_letters: {share: 3}", "quality setting few_letters.share"),
        ("- a\n- b", "not a mapping"),
        ("short: 5", "quality setting short takes characters by name, or false to be off, not 5"),
        ("normalise: false", "normalise takes mojibake by name, not False"),
        ("short: {characters: {korean: 5}}", "'korean' is not a language code"),
        (
            "short: {characters: {no: 5}}",
            "False is not a language code such as ko; one that YAML reads as something else needs quotes",
        ),
        ("short: [", "cannot read quality settings"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "quality.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_quality(path)
    assert "\n" not in str(caught.value)


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "quality.yaml"
    path.write_text(
        "lone_jamo: false\nfew_letters: {share: {ko: 0.4}}\nshort: {characters: 99}\nword_length: true\n"
    )
    found, shipped = load_quality(path), load_quality()
    assert found.lone_jamo is None and found.few_letters.share == {"default": 0.55, "ko": 0.4}
    assert found.short.characters == {"default": 99} and found.word_length == shipped.word_length


def test_fillers_drop_no_document_and_reach_no_token(shipped: Judge) -> None:
    """Blank lines of Hangul fillers stand in many Korean web pages."""
    plain = shipped.judge_text(Document(GOOD["ko"], None, "test", "1"))
    for filler in "\u3164\u115f\u1160\uffa0":
        text = GOOD["ko"] + 3 * f"\n{filler * 200}\n{filler} {filler}\n"
        text = text.replace("은", f"은{filler}")
        judged = shipped.judge_text(Document(text, None, "test", "1"))
        assert (judged.rule, judged.language, judged.text) == (None, "ko", plain.text)
        # Nor is a text of fillers Korean.
        assert judge().judge_text(Document(filler * 900, None, "test", "1")).rule == "empty"


def test_an_evaluation_set_is_found_in_whatever_form_it_is_stored() -> None:
    text = GOOD["ko"]
    forms = [text, unicodedata.normalize("NFD", text), "\u200b".join(text), "\u3164".join(text)]
    grams = [_grams_of_texts([form], [20, 40])[20].tolist() for form in forms]
    assert grams[0] and all(one == grams[0] for one in grams)
