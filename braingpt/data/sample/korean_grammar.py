"""Korean particles and verb endings.

Particles follow the last sound of the word: the final consonant of a Hangul syllable is
`(code - 0xAC00) % 28`, 0 for none, 8 for ㄹ. Endings follow the rules of the standard orthography (한글
맞춤법, chapter 4): vowel harmony, contraction, and the irregular stems.
"""

from functools import cache

from braingpt.data.sample.grammar import Noun

_FIRST, _LAST, _RIEUL = 0xAC00, 0xD7A3, 8
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"

# Spec -> (after a consonant, after a vowel); any other spec is attached as it is (에, 에서, 도, 의, ...).
PARTICLES = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "이랑": ("이랑", "랑"),
    "으로": ("으로", "로"),
    "이나": ("이나", "나"),
    "아": ("아", "야"),
    "이야": ("이야", "야"),
    "이고": ("이고", "고"),
    "이지만": ("이지만", "지만"),
    "이라고": ("이라고", "라고"),
    "이라는": ("이라는", "라는"),
    "이었다": ("이었다", "였다"),
    "이었는데": ("이었는데", "였는데"),
    "이에요": ("이에요", "예요"),
    "이었어": ("이었어", "였어"),
    "이네": ("이네", "네"),
    "이네요": ("이네요", "네요"),
    "이면": ("이면", "면"),
    "이니까": ("이니까", "니까"),
    "이든": ("이든", "든"),
    "이라서": ("이라서", "라서"),
    "이라면": ("이라면", "라면"),
    "이구나": ("이구나", "구나"),
    "이니": ("이니", "니"),
    "이라니": ("이라니", "라니"),
    "이요": ("이요", "요"),
    "입니다": ("입니다", "입니다"),
}
_DIGITS = ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")


def read_number(n: int) -> str:
    """Sino-Korean reading of 0 to 9999: 12 is 십이, 100 is 백. Decides which particle follows the digits."""
    if n == 0:
        return _DIGITS[0]
    parts = []
    for value, unit in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit, n = divmod(n, value)
        if digit:
            parts.append((_DIGITS[digit] if digit > 1 or not unit else "") + unit)
    return "".join(parts)


def final(word: str) -> int:
    """Index of the last syllable's final consonant: 0 none, 8 ㄹ.

    ValueError where the last character is no Hangul syllable.
    """
    code = ord(word[-1])
    if not _FIRST <= code <= _LAST:
        raise ValueError(f"no Hangul syllable at the end of {word!r}: give its sound")
    return (code - _FIRST) % 28


def attach(word: str, particle: str, sound: str | None = None) -> str:
    """`word` with the right form of `particle`.

    `sound`: how a word that is not written in Hangul is read ("API" -> "에이피아이").
    """
    if particle not in PARTICLES:
        return word + particle
    last = final(sound or word)
    closed = last != 0 and not (particle == "으로" and last == _RIEUL)
    return word + PARTICLES[particle][0 if closed else 1]


class Word(Noun):
    """A Korean noun; the spec is the particle as it stands after a consonant."""

    def __init__(self, text: str, sound: str | None = None) -> None:
        super().__init__(text)
        self.sound = sound

    def form(self, spec: str) -> str:
        return attach(self.text, spec, self.sound)


class Person(Word):
    """A given name. In familiar narration a name with a final consonant takes 이 before the particle:
    지훈이가, but 지훈아!
    """

    def __init__(self, name: str, familiar: bool) -> None:
        super().__init__(name)
        self.familiar = familiar
        self.called = name + "이" if final(name) else name
        self.base = self.called if familiar else name

    def __format__(self, spec: str) -> str:
        return self.form(spec) if spec else self.base

    def form(self, spec: str) -> str:
        if spec == "아":
            return attach(self.text, spec)
        # Both take 이 in any style: 지훈이네, 지훈이랑.
        if spec in ("네", "이랑"):
            return attach(self.called, spec)
        return attach(self.base, spec)


def number(n: int) -> Word:
    """A number in digits that takes particles by its reading: 12는, 10은."""
    return Word(str(n), read_number(n))


# Irregular stems by their last word. All others are regular, or regular by their shape (ㄹ, 으, 하 stems).
_IRREGULAR = {
    "ㄷ": ["걷", "듣", "묻", "싣", "깨닫"],
    "ㅂ": [
        "춥",
        "덥",
        "무덥",
        "맵",
        "돕",
        "눕",
        "줍",
        "굽",
        "쉽",
        "어렵",
        "무섭",
        "고맙",
        "반갑",
        "귀엽",
        "가볍",
        "무겁",
        "즐겁",
        "아름답",
        "외롭",
        "아쉽",
        "부드럽",
        "시끄럽",
        "자랑스럽",
        "뜨겁",
        "차갑",
        "두껍",
        "어둡",
        "가깝",
        "더럽",
    ],
    "ㅅ": ["짓", "낫", "붓", "젓", "잇", "긋"],
    "ㅎ": ["빨갛", "노랗", "파랗", "하얗", "까맣", "동그랗", "커다랗", "그렇", "어떻"],
    "르": [
        "부르",
        "모르",
        "빠르",
        "고르",
        "자르",
        "기르",
        "오르",
        "흐르",
        "서두르",
        "누르",
        "다르",
        "마르",
        "바르",
        "서투르",
        "나르",
        "구르",
        "게으르",
    ],
}
_KIND = {stem: kind for kind, stems in _IRREGULAR.items() for stem in stems}
_BRIGHT = "ㅏㅗㅑ"
_MERGED = {
    "ㅏ": "ㅏ",
    "ㅓ": "ㅓ",
    "ㅗ": "ㅘ",
    "ㅜ": "ㅝ",
    "ㅣ": "ㅕ",
    "ㅐ": "ㅐ",
    "ㅔ": "ㅔ",
    "ㅕ": "ㅕ",
    "ㅚ": "ㅙ",
}


def _apart(syllable: str) -> tuple[int, str, str]:
    """(index of the initial consonant, vowel, final consonant or a space) of a Hangul syllable."""
    initial, vowel_and_last = divmod(ord(syllable) - _FIRST, 588)
    vowel, last = divmod(vowel_and_last, 28)
    return initial, _VOWELS[vowel], _FINALS[last]


def _join(initial: int, vowel: str, last: str = " ") -> str:
    return chr(_FIRST + initial * 588 + _VOWELS.index(vowel) * 28 + _FINALS.index(last))


def _close(text: str, last: str) -> str:
    """The open last syllable of `text` closed with the consonant `last`."""
    initial, vowel, _ = _apart(text[-1])
    return text[:-1] + _join(initial, vowel, last)


def _infinitive(stem: str, kind: str | None) -> str:
    """The form before 서, 요, ㅆ: 가, 봐, 마셔, 걸어, 도와, 불러, 빨개, 해."""
    head, (initial, vowel, last) = stem[:-1], _apart(stem[-1])
    if stem[-1] == "하":
        return head + "해"
    if kind == "ㅂ":
        return head + _join(initial, vowel) + ("와" if stem[-1] in "돕곱" and not head else "워")
    if kind == "ㅎ":
        return head + _join(initial, "ㅒ" if vowel == "ㅑ" else "ㅐ")
    if kind == "르":
        return _close(head, "ㄹ") + ("라" if _apart(head[-1])[1] in _BRIGHT else "러")
    if kind in ("ㄷ", "ㅅ"):
        return (
            head + _join(initial, vowel, "ㄹ" if kind == "ㄷ" else " ") + ("아" if vowel in _BRIGHT else "어")
        )
    if last == " " and vowel == "ㅡ":
        return head + _join(
            initial, "ㅏ" if head and head[-1] != " " and _apart(head[-1])[1] in _BRIGHT else "ㅓ"
        )
    if last == " " and vowel in _MERGED:
        return head + _join(initial, _MERGED[vowel])
    return stem + ("아" if vowel in _BRIGHT else "어")


@cache
def conjugate(verb: str, ending: str) -> str:
    """`verb` in dictionary form (its last word decides: "그림을 그리다") with `ending`, spelled as after a
    closed dark stem.

    Endings in 어 (어, 어서, 었다, 어요) take harmony and contraction. Those in 으 (으면, 은, 을, 으러) lose
    it after a vowel or ㄹ. 는다 and 습니다 change after a vowel. The others (고, 지, 자, 는, 기) follow the
    stem as it is. ㄹ falls before ㄴ and ㅅ.
    """
    stem = verb[:-1]
    kind = _KIND.get(stem.split(" ")[-1])
    head, (initial, vowel, last) = stem[:-1], _apart(stem[-1])
    if ending[0] == "어":
        return _infinitive(stem, kind) + ending[1:]
    if ending[0] == "었":
        joined = _infinitive(stem, kind)
        opened, closing = _apart(joined[-1])[2] == " ", ending[1:]
        return (_close(joined, "ㅆ") if opened else joined) + closing
    soft = ending[0] in "으은을"
    if soft and kind in ("ㄷ", "ㅂ", "ㅅ"):
        stem = {
            "ㄷ": head + _join(initial, vowel, "ㄹ"),
            "ㅂ": head + _join(initial, vowel) + "우",
            "ㅅ": head + _join(initial, vowel),
        }[kind]
        if kind in ("ㄷ", "ㅅ"):
            return stem + ending
    elif soft and kind == "ㅎ":
        stem = head + _join(initial, vowel)
    last = _apart(stem[-1])[2]
    if ending in ("는다", "습니다"):
        if last not in " ㄹ":
            return stem + ending
        return _close(stem, "ㄴ" if ending == "는다" else "ㅂ") + ("다" if ending == "는다" else "니다")
    if not soft:
        return (_close(stem, " ") if last == "ㄹ" and ending[0] in "는네니" else stem) + ending
    if last not in " ㄹ":
        return stem + ending
    if ending[0] == "으":
        return (_close(stem, " ") if last == "ㄹ" and ending[1] in "니시" else stem) + ending[1:]
    return _close(stem, "ㄴ" if ending[0] == "은" else "ㄹ") + ending[1:]


class Verb(Noun):
    """A verb or adjective phrase in dictionary form; the spec is the ending."""

    def form(self, spec: str) -> str:
        return conjugate(self.text, spec)
