"""What German, French, Spanish and Italian share: the cast of a document, its kinds, and the facts.

A language adds its word forms (`Forms`) and its texts. Nouns are in `words.txt` with their gender: `m Ball
| f Lampe | n Buch`; a second form after a slash is what the language needs (German: the other cases; Italian:
the plural). Activities are written `infinitive = past`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from braingpt.data.sample.grammar import LATER, Draw, Noun, capital, fill, settle, tell, turns
from braingpt.data.sample.texts import items, stories, table, words

# Word lists of which a document draws one each.
_WORDS = (
    "petname",
    "fable food",
    "weekday",
    "snack",
    "drink",
    "shop",
    "spot",
    "landmark",
    "book",
    "hour",
    "neutral",
)


class Gendered(Noun):
    """A noun that can carry an adjective, its colour (`*` at the end of a spec sets it in) and the gender of
    its owner, for his and her.
    """

    def __init__(
        self, text: str, gender: str = "m", other: str = "", color: str = "", owner: str = "m"
    ) -> None:
        super().__init__(text, gender)
        self.other, self.color, self.owner = other or text, color, owner


@dataclass(frozen=True)
class Forms:
    """One language: its code, its noun class, how a country takes "of", how a turn of a dialogue is told and
    written, and where the world table has it.
    """

    language: str
    noun: type[Gendered]
    country: Callable[[str], Noun]
    said: Callable[[Draw, Noun, str, bool], str]
    # The same as in the text of a play.
    script: Callable[[Noun, str], str]
    # Column of the country in world/capitals; its capital is in the next one.
    column: int
    genders: str = "mf"


def parse(forms: Forms, entry: str, **more: str) -> Gendered:
    """`f Lampe` or `m Bär/Bären` as a noun."""
    gender, _, text = entry.partition(" ")
    text, _, other = text.partition("/")
    return forms.noun(text, gender, other, **more)


def agree(adjective: str, gender: str) -> str:
    """An adjective given as `rojo/roja`, or as one form for both genders."""
    masculine, _, feminine = adjective.partition("/")
    return feminine if feminine and gender == "f" else masculine


def cast(forms: Forms, draw: Draw) -> dict[str, Any]:
    """Everything a template may name, drawn so that it fits together."""
    code = forms.language
    lists = words(code)
    both = [f"m {name}" for name in lists["men"]] + [f"f {name}" for name in lists["women"]]
    hero, friend, third = (parse(forms, entry) for entry in draw.several(both, 3))
    roles: dict[str, Any] = {"hero": hero, "friend": friend, "friend2": third}
    for key, color in zip(("thing", "thing2"), draw.several(lists["colors"], 2), strict=True):
        roles[key] = parse(forms, draw.choice(lists["things"]), color=color, owner=hero.gender)
    roles["elder"] = parse(forms, draw.choice(lists["elders"]), owner=hero.gender)
    roles["stranger"] = parse(forms, draw.choice(lists["strangers"]))
    traits = draw.several(lists["traits"], 2)
    for key, entry, trait in zip(("animal", "animal2"), draw.several(lists["fable"], 2), traits, strict=True):
        roles[key] = parse(forms, entry, color=trait)
    roles["pet"] = parse(forms, draw.choice(lists["pets"]), owner=hero.gender)
    for key in _WORDS:
        roles[key.replace(" ", "_")] = draw.choice(lists[key])
    roles["Weekday"] = capital(roles["weekday"])
    roles["schoolday"] = draw.choice(lists["weekday"][:5])
    roles["Schoolday"] = capital(roles["schoolday"])
    for key in ("indoor", "outdoor"):
        roles |= dict(zip((key, f"{key}2"), draw.several(lists[key], 2), strict=True))
    roles |= dict(zip(("park", "to_park"), draw.choice(lists["parks"]).split("="), strict=True))
    for key, pair in zip(("play", "play2"), draw.several(lists["play"], 2), strict=True):
        roles[key], roles[f"{key}ed"] = (part.strip() for part in pair.split("="))

    # "They" is masculine for persons of two genders.
    for key, others in (("both", friend), ("family", roles["elder"])):
        roles[key] = forms.noun("", "f" if hero.gender == others.gender == "f" else "m")
    roles["animals"] = forms.noun(
        "", "f" if roles["animal"].gender == roles["animal2"].gender == "f" else "m"
    )

    weather_roles, cold = _weather_roles(draw, code)
    roles |= weather_roles | _trip_roles(draw, code, cold)
    dish, ingredients, steps, taste = draw.choice(table(code, "dishes"))
    roles |= {"dish": dish, "ingredients": ingredients, "taste": taste} | {
        f"step{i}": step for i, step in enumerate(items(steps), 1)
    }
    roles["fruit"] = parse(forms, draw.choice(lists["fruits"]))
    price, count = 10 * draw.between(3, 9), draw.between(2, 9)
    roles |= {
        "price": price,
        "count": lists["numbers"][count],
        "total": f"{price * count // 100},{price * count % 100:02}",
    }
    return roles | {
        "change": f"{(1000 - price * count) // 100},{(1000 - price * count) % 100:02}",
        "a": hero,
        "b": friend,
    }


def _weather_roles(draw: Draw, code: str) -> tuple[dict[str, Any], bool]:
    """(a day and its weather, fair weather for what happens outside and what becomes of both, whether it is
    cold).
    """
    rows = table(code, "weather")
    weather = draw.choice(rows)
    cold = "c" in weather[3]
    fair = draw.choice([row for row in rows if "f" in row[3] and ("c" in row[3]) == cold])
    roles: dict[str, Any] = {
        "weather": weather[1],
        "weather_later": weather[2],
        "fairsentence": fair[1],
        "fair_later": fair[2],
    }
    roles |= {"opening": f"{weather[0]} {weather[1]}", "fair": f"{fair[0]} {fair[1]}", "later": LATER}
    return roles, cold


def _trip_roles(draw: Draw, code: str, cold: bool) -> dict[str, Any]:
    """A trip that fits the weather: where to, how, what is seen and done there, what is brought back."""
    to, at, ride, seen, done, souvenir, _ = draw.choice(
        [row for row in table(code, "trips") if row[6] == "y" or not cold]
    )
    roles: dict[str, Any] = {"to": to, "at": at, "ride": draw.choice(items(ride)), "souvenir": souvenir}
    roles |= dict(zip(("seen", "seen2"), draw.several(items(seen), 2), strict=True))
    roles |= dict(zip(("done", "done2"), draw.several(items(done), 2), strict=True))
    return roles


def _story(forms: Forms, draw: Draw) -> str:
    roles = cast(forms, draw)
    topics = stories(forms.language, "stories")
    text = tell(topics[draw.choice(list(topics))], draw, roles)
    if roles["fairsentence"] in text:
        return settle(text, "", roles["fair_later"], "")
    return settle(text, roles["weather"], roles["weather_later"], roles["neutral"])


def _talk(forms: Forms, draw: Draw) -> str:
    roles = cast(forms, draw)
    topics = stories(forms.language, "talk")
    lines = turns(topics[draw.choice(list(topics))], draw, roles)
    speakers = {"A": roles["a"], "B": roles["b"]}
    if draw.chance(40):
        return "\n".join(forms.script(speakers[who], text) for who, text in lines)
    asked = [False] + [text[-1] == "?" for _, text in lines]
    return "\n".join(forms.said(draw, speakers[who], text, asked[i]) for i, (who, text) in enumerate(lines))


def _facts(forms: Forms, draw: Draw) -> str:
    """A document of true statements on one subject; the wording is in `facts.txt`, a beat for each kind
    of statement.
    """
    code = forms.language
    lists, topics = words(code), stories(code, "facts")
    topic = draw.choice(
        (
            "capital",
            "capital",
            "animal",
            "animal",
            "sum",
            "calendar",
            "common",
            "common",
            "opposite",
            "problem",
        )
    )
    lines: list[str] = []
    if topic == "common":
        lines = draw.several(topics[topic][0], draw.between(4, 7))
    elif topic == "capital":
        for row in draw.several(table("world", "capitals"), draw.between(4, 7)):
            roles: dict[str, Any] = {"land": forms.country(row[forms.column]), "city": row[forms.column + 1]}
            lines.append(fill(draw.choice(topics[topic][0]), draw, roles))
    elif topic == "animal":
        for name, food, home, trait in draw.several(table(code, "animals"), draw.between(2, 4)):
            roles = {"animal": parse(forms, name), "food": food, "home": home, "trait": trait}
            beats = draw.several(topics[topic], draw.between(2, len(topics[topic])))
            lines += [fill(draw.choice(beat), draw, roles) for beat in beats]
    elif topic == "opposite":
        for pair in draw.several(lists["opposites"], draw.between(3, 6)):
            roles = dict(zip(("one", "other"), pair.split("="), strict=True))
            lines.append(fill(draw.choice(topics[topic][0]), draw, roles))
    elif topic == "problem":
        hero, friend = map(forms.noun, draw.several(lists["men"] + lists["women"], 2))
        have, more = draw.between(2, 10), draw.between(2, 9)
        beat = draw.below(2)
        have, left = (have, have + more) if beat == 0 else (have + more, have)
        numbers = lists["numbers"]
        roles = {
            "hero": hero,
            "friend": friend,
            "toys": draw.choice(lists["toys"]),
            "have": numbers[have],
            "more": numbers[more],
        }
        lines = [fill(draw.choice(topics[topic][beat]), draw, roles | {"left": numbers[left]})]
    else:
        for _ in range(draw.between(4, 7)):
            a, b, c, d = draw.between(1, 20), draw.between(1, 20), draw.between(2, 10), draw.between(2, 10)
            roles = {"a": a, "b": b, "total": a + b, "c": c, "d": d, "product": c * d, "double": 2 * a}
            day, month = draw.below(7), draw.below(12)
            roles |= {"day": lists["weekday"][day], "next_day": lists["weekday"][(day + 1) % 7]}
            roles |= {"month": lists["months"][month], "next_month": lists["months"][(month + 1) % 12]}
            lines.append(capital(fill(draw.choice(topics[topic][0]), draw, roles)))
    return draw.choice((" ", "\n")).join(dict.fromkeys(lines))


def write(forms: Forms, draw: Draw) -> str:
    """One document: story, dialogue or facts."""
    return draw.choice((_story, _story, _story, _talk, _talk, _facts))(forms, draw)
