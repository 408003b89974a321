"""The sample corpus makes sense: answers go with their questions, doings with their place and season, and
nobody goes to school on Sunday.

Each entry names a sentence that a template once made from parts that are right one by one.
"""

import re
from collections import Counter

import pytest

from braingpt.data.document import Document
from braingpt.data.sample import documents
from braingpt.data.sample.grammar import Draw, choose, fits, marked, tell, turns
from braingpt.data.sample.texts import stories, words

STORIES = [
    (language, name)
    for language, names in {
        "ko": ("stories", "tales", "notes", "talk", "talk_family", "mixed_talk"),
        "en": ("stories", "tales", "notes", "talk"),
        **dict.fromkeys(("de", "fr", "es", "it"), ("stories", "talk")),
    }.items()
    for name in names
]


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    return list(documents(seed=3))


def test_marks_tie_an_alternative_to_what_was_said_before() -> None:
    beats = [
        ("(tea) A: Tea?", "(bun) A: A bun?"),
        ("(?tea) B: Hot, please.", "(!tea) B: With butter, please."),
    ]
    told = {tuple(text for _, text in turns(beats, Draw(seed), {})) for seed in range(20)}
    assert told == {("Tea?", "Hot, please."), ("A bun?", "With butter, please.")}
    assert tell(["(a) (b) One.", "\n", ("(?a) (?b) Two.", "(!a) Three.")], Draw(0), {}) == "One.\nTwo."
    assert marked("(?a)(!b) (c) text (d)") == ([("?", "a"), ("!", "b"), ("", "c")], "text (d)")
    with pytest.raises(IndexError):
        choose(("(?tea) Hot.",), Draw(0), set())


@pytest.mark.parametrize(("language", "name"), STORIES)
def test_every_beat_has_an_alternative_and_every_alternative_a_way_to_be_told(
    language: str, name: str
) -> None:
    for title, beats in stories(language, name).items():
        ways: set[frozenset[str]] = {frozenset()}
        for beat in beats:
            options = [marked(option) for option in ([beat] if isinstance(beat, str) else beat)]
            for left in ways:
                assert any(fits(marks, left) for marks, _ in options), (title, beat, left)
            for marks, text in options:
                assert any(fits(marks, left) for left in ways), (title, text)
            ways = {
                left | {name for sign, name in marks if not sign}
                for left in ways
                for marks, _ in options
                if fits(marks, left)
            }


NEVER = [
    # school on a weekend
    ("ko", r"[토일]요일 (?:아침|오전)에 \S+네 반"),
    ("en", r"On (?:Saturday|Sunday) a new pupil"),
    ("de", r"Am (?:Samstag|Sonntag) kam \S+ neu in die Klasse"),
    ("fr", r"(?:Samedi|Dimanche), \S+ arrive dans la classe"),
    ("es", r"El (?:sábado|domingo) llegó \S+ a la clase"),
    ("it", r"(?:Sabato|Domenica) \S+ arriva nella classe"),
    # summer's doings in winter
    ("ko", r"(?s)어느 겨울날.*(?:바다|산|시골|식물원|호수|목장)에 (?:가기로|도착)"),
    ("en", r"(?s)One winter .*(?:sandcastle|blueberries|swam to the island|look for shells)"),
    ("de", r"(?s)Winter(?:tag|morgen).*(?:ans Meer|in die Berge|auf den Bauernhof|an den See)\b"),
    ("fr", r"(?s)d'hiver, .*va (?:à la mer|à la montagne|à la ferme|au lac)"),
    ("es", r"(?s)de invierno, .*iba (?:a la playa|a la montaña|a la granja|al lago)"),
    ("it", r"(?s)d'inverno .*va (?:al mare|in montagna|alla fattoria|al lago)"),
    # doings in the wrong place, at the wrong time, or alone
    ("ko", r"집에서 (?:공을|동네를|비눗방울을|숨바꼭질을|배드민턴을|줄넘기를)"),
    ("ko", r"혼자 (?:숨바꼭질|보드게임|옛날이야기|딱지|배드민턴)"),
    ("ko", r"마시(?:며|면서) (?:공을|동네를|춤을|비눗방울을|쿠키를|노래를|줄넘기를)"),
    ("ko", r"밖에서 (?:피아노|퍼즐|쿠키|책을|만화|보드게임|블록)"),
    ("ko", r"어느 \S+날 아침, [^.]*\. \S+ \S+ (?:학교가 끝나고|점심을 먹고)"),
    ("ko", r"어느 \S+날 오후, [^.]*\. \S+ (?:일찍|조금 늦게) 일어났"),
    ("en", r"One \w+ afternoon, [^.]* had slept a little too long"),
    ("ko", r"도서관에서 [^\n]*\n[^\n]*먹으면서 하자"),
    ("ko", r"(?:체육|미술|음악) 숙제"),
    ("en", r"(?:art|music) homework"),
    # things that do not go together
    ("en", r"ma[kd]e some (?:milk|cold water|lemonade|apple juice)"),
    ("de", r"kochte (?:Milch|Limonade|Wasser|Apfelsaft)"),
    (
        "en",
        r"little (?:red|yellow|blue|green|orange|purple|pink|silver|golden) (?:dog|cat|puppy|kitten|terrier|"
        r"spaniel|sheepdog|poodle)",
    ),
    ("en", r"I can recommend a loaf|Today we have a loaf"),
    ("en", r"bag of potatoes in (?:his|her) bag"),
    ("ko", r"(?:미역국|된장찌개|팥죽)[을를] 접시에"),
    ("ko", r"맛은 (?:고슬고슬|쫄깃쫄깃|바삭바삭|촉촉|폭신폭신|부드러)"),
    ("ko", r"(?:햄스터|거북이|고슴도치|앵무새) \S+ 함께 \S+까지 산책"),
    ("ko", r"새 건전지를 (?:빌렸|빌리|제자리)"),
    ("de", r"einen großen Schirm"),
    ("fr", r"un grand parapluie"),
    ("es", r"un paraguas grande"),
    ("it", r"un grande ombrello"),
    # grammar
    ("ko", r"지나가던 (?:산책하던|자전거를 탄)"),
    ("ko", r"[가-힣]에게 전화가 와서"),
    ("ko", r"준비되셨|결과는 비겼"),
    ("ko", r"아침, 아침부터"),
    ("es", r"menos \d+ son"),
    ("es", r"\b(?:lo|la) quería mucho"),
    ("en", r"Yesterday [^\n]*\. Yesterday "),
    # answers to other questions
    ("ko", r'생일인 거 알아\?"[^"]*"아직 못 샀어'),
    ("ko", r'몇 시에 일어나셨어요\?"[^"]*"그래, 벌써'),
    ("ko", r'어렵지 않아\?"[^"]*"아니, 아직 못 했어'),
    ("ko", r'cake도 있나요\?"[^"]*"영수증'),
    ("ko", r'별일 없니\?"[^"]*"저도 잘'),
    ("ko", r"너도 [^?]* 좋아해\?\" \"(?:정말\? )?나도 그래"),
    ("en", r"Did you know that it is [^\n]*\n[^\n]*Not yet"),
    ("en", r"for the journey[^\n]*\n[^\n]*Yes, please"),
    ("en", r'Do you like to [^?]*, too\?" "So do I'),
    ("en", r"come to my house[^\n]*\n[^\n]*can help us"),
    ("ko", r"잘 받았어요[^\n]*\n[^\n]*알겠습니다\. deadline"),
    ("en", r"like to buy [^\n]*\n[^\n]*(?:antique|hardware|sports) shop"),
]


@pytest.mark.parametrize(("language", "never"), NEVER)
def test_what_no_document_may_say(corpus: list[Document], language: str, never: str) -> None:
    for document in corpus:
        if document.language == language:
            found = re.search(never, document.text)
            assert not found, (found, document.text)


def test_a_stranger_is_thanked_only_by_those_who_met_one(corpus: list[Document]) -> None:
    pairs = {
        "ko": (r'"네, 제 거예요', r'네 것이니\?"|들고 두리번거리고'),
        "en": (r'"Yes, that is it!', r"came up to them|At that moment they met"),
    }
    pairs |= {
        "de": (r"„Ja, das ist (?:mein|meine) \S+! Vielen Dank", r"entgegen\."),
        "fr": (r"« Oui, c'est m\S+ .*Merci", r"s'approche\."),
    }
    pairs |= {
        "es": (r"«¡Sí, es mi .*gracias", r"se acercó un"),
        "it": (r"«Sì, è (?:il mio|la mia) .*Grazie", r"si avvicina un"),
    }
    met = Counter()
    for document in corpus:
        thanks, meeting = pairs[document.language]
        if re.search(thanks, document.text):
            met[document.language] += 1
            assert re.search(meeting, document.text), document.text
    assert set(met) == set(pairs)


def test_notices_and_workers_carry_plain_names(corpus: list[Document]) -> None:
    """지훈 올림, not 지훈이 올림; and no grown-up at work is called 지훈이."""
    names = words("ko")["names"]
    signed = [
        name
        for document in corpus
        if document.language == "ko"
        for name in re.findall(r"고맙습니다\. (\S+) 올림", document.text)
    ]
    assert len(signed) > 50 and set(signed) <= set(names)
    workers = [name for d in corpus if d.language == "ko" for name in re.findall(r"^(\S+)의 직업은", d.text)]
    assert len(workers) > 10 and set(workers) <= set(names)


def test_no_remark_fills_the_code_switched_dialogues(corpus: list[Document]) -> None:
    """A sentence that stands in every other dialogue about an error is learned by heart; each has to be rare
    enough among them.
    """
    told = [d.text for d in corpus if d.language == "ko" and re.search("bug|말썽|fail", d.text)]
    causes = Counter(
        found
        for text in told
        for found in set(re.findall(r'"[^"]*(?:때문일|그럴 거|그래요\.|그런 거)[^"]*"', text))
    )
    assert len(told) > 20
    assert max(causes.values()) / len(told) < 0.2
