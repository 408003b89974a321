"""True statements in English: capitals, animals, sizes, arithmetic, the calendar, everyday knowledge; also
riddles and word problems.
"""

from braingpt.data.sample.english_grammar import English, article, plural
from braingpt.data.sample.grammar import Draw, capital
from braingpt.data.sample.texts import table, words

_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _word(n: int) -> str:
    numbers = words("en")["numbers"]
    return numbers[n] if n < len(numbers) else str(n)


def _capitals(draw: Draw) -> list[str]:
    lines = []
    for row in draw.several(table("world", "capitals"), draw.between(4, 8)):
        continent, country, city = row[0], row[3], row[4]
        forms = [
            f"The capital of {country} is {city}.",
            f"{city} is the capital of {country}.",
            f"What is the capital of {country}? It is {city}.",
        ]
        if continent:
            forms.append(f"{capital(country)} is in {continent}, and its capital is {city}.")
        lines.append(draw.choice(forms))
    return lines


def _animals(draw: Draw) -> list[str]:
    lines = []
    for animal, food, home, legs, trait in draw.several(table("en", "animals"), draw.between(2, 4)):
        many = capital(plural(animal))
        about = [f"{many} live {home}.", f"{many} eat {food}.", f"{many} {trait}."]
        if legs != "0":
            about.append(f"{capital(article(animal))} {animal} has {_word(int(legs))} legs.")
        lines += draw.several(about, draw.between(2, len(about)))
    return lines


def _riddle(draw: Draw) -> list[str]:
    animal, food, home, legs, trait = draw.choice(table("en", "animals"))
    hints = [
        f"We live {home}.",
        f"We eat {food}.",
        f"We {trait.replace('their', 'our').replace('each other', 'one another')}.",
    ]
    if legs != "0":
        hints.append(f"Each of us has {_word(int(legs))} legs.")
    lists = words("en")
    asker, solver = draw.several(lists["men"] + lists["women"], 2)
    return [
        f'{asker} said, "Here is a riddle. {" ".join(draw.several(hints, len(hints)))} Who are we?"',
        f'"You are {plural(animal)}!" said {solver}.',
    ]


def _sizes(draw: Draw) -> list[str]:
    lines = []
    for row in draw.several(words("en")["sizes"], draw.between(2, 3)):
        ladder = [thing.strip() for thing in row.split("<")]
        for _ in range(2):
            low = draw.below(len(ladder) - 1)
            small, large = English(ladder[low]), English(ladder[draw.between(low + 1, len(ladder) - 1)])
            lines.append(
                draw.choice((f"{large:A} is bigger than {small:a}.", f"{small:A} is smaller than {large:a}."))
            )
    return list(dict.fromkeys(lines))


def _sums(draw: Draw) -> list[str]:
    lines = []
    for _ in range(draw.between(4, 8)):
        a, b = draw.between(1, 20), draw.between(1, 20)
        c, d = draw.between(2, 10), draw.between(2, 10)
        forms = (
            f"{a} plus {b} is {a + b}.",
            f"{a + b} minus {a} is {b}.",
            f"{c} times {d} is {c * d}.",
            f"{capital(_word(c))} and {_word(d)} make {_word(c + d)}.",
            f"If you take {_word(c)} away from {_word(c + d)}, {_word(d)} {'is' if d == 1 else 'are'} left.",
            f"{a + b} is {'greater than ' + str(a)}.",
            f"Half of {2 * a} is {a}.",
        )
        lines.append(draw.choice(forms))
    return list(dict.fromkeys(lines))


def _calendar(draw: Draw) -> list[str]:
    lists = words("en")
    days, months = lists["weekdays"], lists["months"]
    lines = []
    for _ in range(draw.between(4, 7)):
        day, month = draw.below(7), draw.below(12)
        length = (
            f"{months[month]} has {_DAYS[month]} days."
            if month != 1
            else "February usually has 28 days, but 29 in a leap year."
        )
        forms = (
            f"The day after {days[day]} is {days[(day + 1) % 7]}.",
            f"The day before {days[day]} is {days[day - 1]}.",
            f"{months[(month + 1) % 12]} comes after {months[month]}.",
            f"If today is {days[day]}, tomorrow will be {days[(day + 1) % 7]}.",
            length,
        )
        lines.append(draw.choice(forms))
    return list(dict.fromkeys(lines))


def _common(draw: Draw) -> list[str]:
    lines = [row[0] for row in draw.several(table("en", "facts"), draw.between(4, 8))]
    for pair in draw.several(words("en")["opposites"], draw.between(0, 3)):
        lines.append('The opposite of "{}" is "{}".'.format(*pair.split("=")))
    return lines


def _problem(draw: Draw) -> list[str]:
    lists = words("en")
    men = draw.chance(50)
    hero, friend = (
        English(draw.choice(lists["men" if men else "women"]), "m" if men else "f"),
        draw.choice(lists["women" if men else "men"]),
    )
    toy, have, other = draw.choice(lists["toys"]), draw.between(3, 20), draw.between(1, 19)

    def some(n: int) -> str:
        return f"{_word(n)} {toy if n == 1 else plural(toy)}"

    if draw.chance(50) or other >= have:
        left = have + other
        change = draw.choice(
            (f"{friend} gives {hero:him} {_word(other)} more.", f"Then {hero:he} buys {some(other)}.")
        )
        working = f"{have} + {other} = {left}"
    else:
        left = have - other
        change = draw.choice(
            (f"{hero:He} gives {some(other)} to {friend}.", f"Then {hero:he} loses {_word(other)} of them.")
        )
        working = f"{have} - {other} = {left}"
    answer = draw.choice(
        (f"{hero:He} has {some(left)} now.", f"{working}, so {hero:he} has {some(left)} now.")
    )
    return [f"{hero} has {some(have)}.", change, f"How many {plural(toy)} does {hero} have now?", answer]


def facts(draw: Draw) -> str:
    """A document of facts on one subject."""
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
    return draw.choice((" ", "\n")).join(topic(draw))
