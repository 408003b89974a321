"""English: stories, dialogues, diaries, letters and notices, with one cast of words per document so that
characters and things come back.
"""

from typing import Any

from braingpt.data.sample.english_facts import facts
from braingpt.data.sample.english_grammar import English
from braingpt.data.sample.grammar import LATER, Draw, capital, settle, tell, turns
from braingpt.data.sample.texts import items, stories, table, words

_SEASONS = {"spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11), "winter": (12, 1, 2)}
# Word list -> names of the words that a document draws from it.
_WORDS = (
    ("pet kinds", "pet"),
    ("pet names", "petname"),
    ("colors", "color", "color2"),
    ("fur colors", "fur"),
    ("things", "thing", "decoy"),
    ("indoors", "indoor", "indoor2"),
    ("outdoors", "outdoor", "outdoor2"),
    ("parks", "park"),
    ("shops", "shop"),
    ("gift shops", "gift_shop"),
    ("spots", "spot"),
    ("landmarks", "landmark"),
    ("snacks", "snack"),
    ("drinks", "drink"),
    ("hot drinks", "hot_drink"),
    ("menu", "menu"),
    ("topics", "topic"),
    ("hours", "hour"),
    ("plants", "plant"),
    ("fable", "animal", "animal2"),
    ("fable food", "fable_food"),
    ("traits", "traits", "trait2"),
    ("subjects", "subject", "subject2", "subject3"),
    ("subjects with homework", "study"),
    ("fruits", "fruit"),
    ("books", "book"),
    ("weekdays", "weekday"),
)


def people(draw: Draw, count: int) -> list[English]:
    """Different persons, men and women."""
    lists = words("en")
    both = [English(name, "m") for name in lists["men"]] + [English(name, "f") for name in lists["women"]]
    return draw.several(both, count)


def _weather(draw: Draw, season: str, fair: bool) -> list[str]:
    return draw.choice(
        [row for row in table("en", "weather") if row[0] == season and (not fair or row[3] == "f")]
    )


def cast(draw: Draw) -> dict[str, Any]:
    """Everything an English template may name, drawn so that it fits together: season and weather, trip and
    souvenir, dish and steps.
    """
    lists = words("en")
    season = draw.choice(list(_SEASONS))
    following = list(_SEASONS)[(list(_SEASONS).index(season) + 1) % 4]
    roles: dict[str, Any] = dict(zip(("hero", "friend", "friend2"), people(draw, 3), strict=True))

    def pick(key: str, *names: str) -> None:
        roles.update(zip(names, map(English, draw.several(lists[key], len(names))), strict=True))

    for key, kinds in (("elder", "elders"), ("stranger", "strangers")):
        gender = draw.choice("mf")
        word = draw.choice(lists[f"{kinds} {'men' if gender == 'm' else 'women'}"])
        roles[key] = English(word.split("=")[0], gender)
    for key, *names in _WORDS:
        pick(key, *names)
    roles["schoolday"] = draw.choice(lists["weekdays"][:5])
    pick("play", "play", "play2", "play3")
    pick(f"play in {season}", "season_play", "season_play2")
    pick(f"play in {following}", "next_play")
    roles |= {"season": English(season), "next_season": English(following)}
    return roles | _weather_roles(draw, season) | _trip_roles(draw, season) | _work_roles(draw)


def _weather_roles(draw: Draw, season: str) -> dict[str, Any]:
    """A day of a season, its weather, fair weather for what happens outside, and what becomes of both."""
    time = draw.choice(words("en")["times"])
    weather, fair = _weather(draw, season, False), _weather(draw, season, True)
    roles: dict[str, Any] = {
        "opening": f"One {season} {time}, {weather[1]}",
        "morning": f"One {season} morning, {weather[1]}",
    }
    roles |= {
        "fair": f"One {season} {time}, {fair[1]}",
        "fairsentence": capital(fair[1]),
        "weather": English(weather[1]),
    }
    roles |= {
        "later": LATER,
        "fairlater": LATER,
        "weather_later": weather[2],
        "fair_later": fair[2],
        "time": time,
    }
    roles |= {
        "month_name": words("en")["months"][draw.choice(_SEASONS[season]) - 1],
        "day": draw.between(1, 28),
    }
    return roles


def _trip_roles(draw: Draw, season: str) -> dict[str, Any]:
    """A trip that fits the season: where to, how, what is seen and done there, what is brought back."""
    place, rides, seen, done, souvenir, _ = draw.choice(
        [row for row in table("en", "trips") if row[5] == "y" or season != "winter"]
    )
    sights, doings = draw.several(items(seen), 2), draw.several(items(done), 2)
    roles: dict[str, Any] = {
        "place": place,
        "ride": draw.choice(items(rides)),
        "seen": sights[0],
        "seen2": sights[1],
        "souvenir": souvenir,
    }
    roles |= {"done": English(doings[0]), "done2": English(doings[1])}
    return roles


def _work_roles(draw: Draw) -> dict[str, Any]:
    """A dish, a broken thing and its repair, a job, a skill."""
    dish, ingredients, steps, taste = draw.choice(table("en", "dishes"))
    roles: dict[str, Any] = {"dish": English(dish), "ingredients": ingredients, "taste": taste}
    roles |= {f"step{i}": step for i, step in enumerate(items(steps), 1)}
    thing, fault, mend, tool = draw.choice(table("en", "broken"))
    roles |= {"broken": thing, "fault": fault, "mend": English(mend), "tool": tool}
    job, job_place, task, event, result = draw.choice(table("en", "jobs"))
    roles |= {
        "job": English(job),
        "job_place": job_place,
        "task": task,
        "work_event": event,
        "work_result": result,
    }
    return roles | {"skill": draw.choice(table("en", "skills"))[0]}


def _title(draw: Draw, topic: str, roles: dict[str, Any]) -> str:
    titles = {
        "lost at home": "The {color} {thing}",
        "lost outside": "The lost {thing}",
        "a new friend": "{hero} and {friend}",
        "a trip": "A day at {place}",
        "a fable": "The {animal} and the {animal2}",
        "a birthday present": "{friend}'s birthday",
        "a lost pet": "Where is {petname}?",
        "something broken": "The broken {broken}",
        "growing a plant": "{hero} and the {plant}",
    }
    return titles[topic].format_map(roles) + "\n" if topic in titles and draw.chance(35) else ""


def _story(draw: Draw) -> str:
    roles = cast(draw)
    topics = {**stories("en", "stories"), **stories("en", "tales")}
    topic = draw.choice(list(topics))
    text = tell(topics[topic], draw, roles)
    if roles["fair"][1:] in text or roles["fairsentence"] in text:
        text = settle(text, "", roles["fair_later"], "")
    text = settle(text, roles["weather"].text, roles["weather_later"], draw.choice(words("en")["neutral"]))
    return _title(draw, topic, roles) + text


def _note(draw: Draw) -> str:
    topics = stories("en", "notes")
    return tell(topics[draw.choice(list(topics))], draw, cast(draw))


def _money(draw: Draw) -> dict[str, str]:
    price, count = 10 * draw.between(3, 12), draw.between(2, 9)
    total = price * count
    paid = next(note for note in (5, 10, 20) if note * 100 > total)
    amounts = {"total": total, "change": paid * 100 - total}
    return {key: f"€{cents // 100}.{cents % 100:02}" for key, cents in amounts.items()} | {
        "price": str(price),
        "count": words("en")["numbers"][count],
        "paid": str(paid),
    }


def _said(draw: Draw, speaker: English, text: str, asked: bool) -> str:
    """One turn in prose."""
    if text[-1] == "?":
        return f'"{text}" asked {speaker}.'
    said = "answered" if asked and draw.chance(50) else "said"
    if text[-1] == "." and draw.chance(30):
        return f'{speaker} {said}, "{text}"'
    return f'"{text[:-1]}," {said} {speaker}.' if text[-1] == "." else f'"{text}" {said} {speaker}.'


def _talk(draw: Draw) -> str:
    topics = stories("en", "talk")
    roles = cast(draw)
    sky = draw.choice(table("en", "sky"))
    roles |= {
        "a": roles["hero"],
        "b": roles["friend"],
        "sky": sky[0],
        "sky2": sky[1],
        "bring": sky[2],
    } | _money(draw)
    roles["people"] = words("en")["numbers"][draw.between(2, 6)]
    speakers = {"A": roles["a"], "B": roles["b"]}
    lines = turns(topics[draw.choice(list(topics))], draw, roles)
    if draw.chance(50):
        return "\n".join(f'{speakers[who]}: "{text}"' for who, text in lines)
    asked = [False] + [text[-1] == "?" for _, text in lines]
    return "\n".join(_said(draw, speakers[who], text, asked[i]) for i, (who, text) in enumerate(lines))


def document(draw: Draw) -> str:
    """One English document: story, dialogue, note or facts."""
    return draw.choice((_story, _story, _story, _story, _talk, _talk, _note, facts))(draw)
