"""True statements in Korean: capitals, animals, sizes, arithmetic, the calendar, everyday knowledge; also
riddles and word problems.
"""

from braingpt.data.sample.grammar import Draw, Noun
from braingpt.data.sample.korean_grammar import Person, Word, conjugate, number
from braingpt.data.sample.texts import items, table, words

_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_TENS = ("", "열", "스물", "서른", "마흔")
_DAYS = {1: 31, 2: 28, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}
_STYLES = ("plain", "polite", "formal")


def native(n: int) -> str:
    """The native numeral before a counter, 1 to 49: 세 (개), 스무 (개), 스물한 (개)."""
    tens, ones = divmod(n, 10)
    return "스무" if n == 20 else _TENS[tens] + _ONES[ones]


def predicate(word: Noun | str, kind: str, style: str) -> str:
    """A sentence's end: kind "=" (noun), "v" (verb) or "a" (adjective) in plain, polite (해요체) or formal
    style (합쇼체).
    """
    if kind == "=":
        noun = word if isinstance(word, Word) else Word(str(word), str(word).strip("'"))
        return noun.form({"plain": "이다", "polite": "이에요", "formal": "입니다"}[style])
    endings = {"plain": "는다" if kind == "v" else "", "polite": "어요", "formal": "습니다"}
    return conjugate(str(word), endings[style]) if endings[style] else str(word)


def _marked(field: str) -> tuple[str, str]:
    """`v 알을 낳다` -> (알을 낳다, v); without a mark an adjective."""
    return (field[2:], "v") if field.startswith("v ") else (field, "a")


def _capitals(draw: Draw, style: str) -> list[str]:
    continents = dict(pair.split("=") for pair in words("ko")["continents"])
    lines = []
    for row in draw.several(table("world", "capitals"), draw.between(4, 8)):
        continent, country, city = row[0], Word(row[1]), Word(row[2])
        form = draw.below(4)
        if form == 0 and continent:
            lines.append(f"{country:은} {continents[continent]}에 {predicate('있다', 'a', style)}.")
        elif form == 1:
            lines.append(f"{city:은} {country:의} {predicate('수도', '=', style)}.")
        elif form == 2 and style != "plain":
            question = "예요" if style == "polite" else "입니까"
            lines.append(f"{country:의} 수도는 어디{question}? {predicate(city, '=', style)}.")
        else:
            lines.append(f"{country:의} 수도는 {predicate(city, '=', style)}.")
    return lines


def _animals(draw: Draw, style: str) -> list[str]:
    lines = []
    for name, food, home, legs, trait in draw.several(table("ko", "animals"), draw.between(2, 4)):
        animal, (special, kind) = Word(name), _marked(trait)
        about = [
            f"{animal:은} {home}에 {predicate('살다', 'v', style)}.",
            f"{animal:은} {Word(food):을} {predicate('먹다', 'v', style)}.",
            f"{animal:은} {predicate(special, kind, style)}.",
        ]
        if legs != "-":
            about.append(f"{animal:은} 다리가 {predicate(f'{legs} 개', '=', style)}.")
        lines += draw.several(about, draw.between(2, len(about)))
    return lines


def _riddle(draw: Draw, style: str) -> list[str]:
    name, food, home, legs, trait = draw.choice(table("ko", "animals"))
    hints = [
        f"나는 {home}에 살아요.",
        f"나는 {Word(food):을} 먹어요.",
        f"나는 {conjugate(_marked(trait)[0], '어요')}.",
    ]
    if legs != "-":
        hints.append(f"나는 다리가 {legs} 개예요.")
    solvers = draw.several(words("ko")["names"], 2)
    asker, solver = (Person(who, True) for who in solvers)
    hints = draw.several(hints, len(hints))
    return [
        f'{asker:이} 수수께끼를 냈다. "{" ".join(hints)} 나는 누구일까요?"',
        f'{solver:이} 대답했다. "정답은 {Word(name):이에요}!"',
    ]


def _sizes(draw: Draw, style: str) -> list[str]:
    lines = []
    for _, row in draw.several(table("ko", "sizes"), draw.between(2, 3)):
        ladder = items(row)
        for _ in range(2):
            small = draw.below(len(ladder) - 1)
            large = draw.between(small + 1, len(ladder) - 1)
            low, high = Word(ladder[small]), Word(ladder[large])
            if draw.chance(50):
                lines.append(f"{high:은} {low}보다 {predicate('크다', 'a', style)}.")
            else:
                lines.append(f"{low:은} {high}보다 {predicate('작다', 'a', style)}.")
    return list(dict.fromkeys(lines))


def _sums(draw: Draw, style: str) -> list[str]:
    lines = []
    for _ in range(draw.between(4, 8)):
        a, b = draw.between(1, 20), draw.between(1, 20)
        form = draw.below(4)
        if form == 0:
            lines.append(f"{a} 더하기 {number(b):은} {predicate(number(a + b), '=', style)}.")
        elif form == 1:
            lines.append(f"{a + b} 빼기 {number(b):은} {predicate(number(a), '=', style)}.")
        elif form == 2:
            a, b = 2 + a % 8, 2 + b % 8
            lines.append(f"{a} 곱하기 {number(b):은} {predicate(number(a * b), '=', style)}.")
        else:
            low, high = min(a, b), max(a, b) + 1
            lines.append(f"{number(high):은} {low}보다 {predicate('크다', 'a', style)}.")
    return lines


def _calendar(draw: Draw, style: str) -> list[str]:
    days, lines = words("ko")["weekdays"], []
    seasons = {3: "봄", 4: "봄", 7: "여름", 8: "여름", 10: "가을", 11: "가을", 12: "겨울", 1: "겨울"}
    for _ in range(draw.between(4, 7)):
        form, day, month = draw.below(4), draw.below(7), draw.between(1, 12)
        if form == 0:
            lines.append(f"{days[day]} 다음 날은 {predicate(days[(day + 1) % 7], '=', style)}.")
        elif form == 1:
            lines.append(f"{days[day]}의 전날은 {predicate(days[day - 1], '=', style)}.")
        elif form == 2:
            lines.append(f"{month}월 다음 달은 {predicate(Word(f'{month % 12 + 1}월'), '=', style)}.")
        elif month in seasons and draw.chance(50):
            lines.append(f"한국에서 {month}월은 {predicate(seasons[month], '=', style)}.")
        elif month != 2:
            lines.append(f"{month}월은 {_DAYS[month]}일까지 {predicate('있다', 'a', style)}.")
        else:
            lines.append(f"2월은 보통 28일까지 {predicate('있다', 'a', style)}.")
    return list(dict.fromkeys(lines))


def _common(draw: Draw, style: str) -> list[str]:
    lines = []
    for subject, rest in draw.several(table("ko", "facts"), draw.between(5, 9)):
        kind, word = rest.split(" ", 1)
        end = predicate(number(int(word)) if word.isdigit() else word, kind, style)
        lines.append(f"{subject} {end}.")
    return lines


def _problem(draw: Draw, style: str) -> list[str]:
    hero, friend = (Person(name, True) for name in draw.several(words("ko")["names"], 2))
    toy, have, more = Word(draw.choice(words("ko")["toys"])), draw.between(3, 20), draw.between(1, 20)
    past = {"plain": "다", "polite": "어요", "formal": "습니다"}[style]
    if draw.chance(50) or more >= have:
        change = draw.choice(
            (f"{friend:이} {native(more)} 개를 더 주었{past}.", f"{hero:은} {native(more)} 개를 더 샀{past}.")
        )
        left = have + more
    else:
        change = draw.choice(
            (
                f"{hero:은} {friend}에게 {native(more)} 개를 주었{past}.",
                f"{hero:은} {native(more)} 개를 잃어버렸{past}.",
            )
        )
        left = have - more
    question = {
        "plain": f"{hero:은} {toy:을} 몇 개 가지고 있을까?",
        "polite": f"이제 {toy:은} 몇 개일까요?",
        "formal": f"남은 {toy:은} 몇 개입니까?",
    }
    if style == "formal" and left > have:
        question["formal"] = f"이제 {toy:은} 모두 몇 개입니까?"
    sum_told = f"{have} {'+' if left > have else '-'} {more} = {left}. " if draw.chance(40) else ""
    ending = {"plain": "개다", "polite": "개예요", "formal": "개입니다"}[style]
    return [
        f"{hero:은} {toy:을} {native(have)} 개 가지고 있었{past}.",
        change,
        question[style],
        f"{sum_told}답은 {native(left)} {ending}.",
    ]


def facts(draw: Draw) -> str:
    """A document of facts on one subject, in one style."""
    style = draw.choice(_STYLES)
    topic = draw.choice(
        (
            _capitals,
            _capitals,
            _animals,
            _animals,
            _sums,
            _sums,
            _problem,
            _problem,
            _calendar,
            _common,
            _common,
            _sizes,
            _riddle,
        )
    )
    return draw.choice((" ", "\n")).join(topic(draw, style))
