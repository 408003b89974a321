"""Korean: stories, dialogues, diaries, letters and notices, with one cast of words per document so that
characters and things come back.
"""

from collections.abc import Sequence
from typing import Any

from braingpt.data.sample.grammar import LATER, Draw, Noun, settle, tell, turns
from braingpt.data.sample.korean_facts import facts, native
from braingpt.data.sample.korean_grammar import Person, Verb, Word, final
from braingpt.data.sample.texts import items, stories, table, words

_MONTHS = {"봄": (3, 4, 5), "여름": (6, 7, 8), "가을": (9, 10, 11), "겨울": (12, 1, 2)}
_SEASONS = tuple(_MONTHS)
# Weather that lets people play outside.
_FAIR = ("맑음", "바람")
# Index of the final consonant ㅆ.
_CLOSED_SS = 20
# Word list -> names of the nouns that a document draws from it.
_NOUNS = (
    ("elders", "elder"),
    ("pet_kinds", "pet"),
    ("roaming pets", "roamer"),
    ("pet_names", "petname"),
    ("things", "thing", "decoy"),
    ("indoors", "indoor", "indoor2"),
    ("outdoors", "outdoor", "outdoor2"),
    ("parks", "park"),
    ("shops", "shop"),
    ("gift shops", "gift_shop"),
    ("breakfasts", "breakfast"),
    ("strangers", "stranger"),
    ("snacks", "snack"),
    ("drinks", "drink"),
    ("outing food", "outing_food"),
    ("cakes", "cake"),
    ("plants", "plant"),
    ("fable", "animal", "animal2"),
    ("fable_food", "fable_food"),
    ("subjects", "subject", "subject2", "subject3"),
    ("subjects with homework", "study"),
    ("spots", "spot"),
    ("landmarks", "landmark"),
    ("study places", "study_place"),
    ("meeting places", "meeting"),
)
# The same of verbs and phrases of doing.
_VERBS = (
    ("play", "play", "play2", "play3"),
    ("play alone", "alone"),
    ("play at home", "home_play"),
    ("play outside", "outdoor_play"),
)


def polite(text: str, ending: str) -> str:
    """Plain narration (했다) in another style: ending "어요" or "습니다". Quoted speech stays as it is."""
    parts = text.split('"')
    for i in range(0, len(parts), 2):
        pieces = parts[i].split("다.")
        for j, piece in enumerate(pieces[:-1]):
            pieces[j] = piece + (f"{ending}." if final(piece) == _CLOSED_SS else "다.")
        parts[i] = "".join(pieces[:-1]) + pieces[-1]
    return '"'.join(parts)


def _weather(draw: Draw, season: str, fair: bool) -> list[str]:
    return draw.choice(
        [row for row in table("ko", "weather") if row[0] == season and (not fair or row[3] in _FAIR)]
    )


def cast(draw: Draw) -> dict[str, Any]:
    """Everything a Korean template may name, drawn so that it fits together: season and weather, trip and
    souvenir, dish and steps.
    """
    lists = words("ko")
    familiar = draw.chance(60)
    season = draw.choice(_SEASONS)
    following = _SEASONS[(_SEASONS.index(season) + 1) % 4]
    roles: dict[str, Any] = {
        "color": draw.choice(lists["colors"]),
        "weekday": Word(draw.choice(lists["weekdays"])),
    }
    roles["schoolday"] = Word(draw.choice(lists["weekdays"][:5]))

    def draw_words(kind: type[Noun], key: str, names: Sequence[str]) -> None:
        roles.update(zip(names, map(kind, draw.several(lists[key], len(names))), strict=True))

    hero, friend = draw.several(lists["names"], 2)
    roles |= {"hero": Person(hero, familiar), "friend": Person(friend, familiar)}
    # Adults are called by their plain names.
    roles |= {"worker": Person(hero, False), "colleague": Person(friend, False)}
    roles |= {
        "season": Word(season),
        "next_season": Word(following),
        "next_play": Verb(draw.choice(lists[f"play in {following}"])),
    }
    for key, *names in _NOUNS:
        draw_words(Word, key, names)
    for key, *names in (*_VERBS, (f"play in {season}", "season_play", "season_play2")):
        draw_words(Verb, key, names)
    title = draw.choice(lists["books"])
    roles["book"] = Word(f"『{title}』", title)
    return (
        roles
        | _weather_roles(draw, season)
        | _trip_roles(draw, season)
        | _dish_roles(draw)
        | _work_roles(draw)
    )


def _weather_roles(draw: Draw, season: str) -> dict[str, Any]:
    """A season's weather: any, and fair for what happens outside; with what becomes of it later."""
    time = draw.choice(words("ko")["times"])
    any_weather, fair = _weather(draw, season, False), _weather(draw, season, True)
    roles: dict[str, Any] = {
        "opening": f"어느 {season}날 {time}, {any_weather[1]}",
        "weather": any_weather[1],
        "weather_later": any_weather[2],
    }
    roles |= {"morning": f"어느 {season}날 아침, {any_weather[1]}", "sky": any_weather[3]}
    roles |= {
        "fair": f"어느 {season}날 {time}, {fair[1]}",
        "fairday": f"어느 {season}날, {fair[1]}",
        "fairsentence": fair[1],
        "fair_later": fair[2],
        "time": time,
    }
    roles |= {
        "later": LATER,
        "fairlater": LATER,
        "month": draw.choice(_MONTHS[season]),
        "day": draw.between(1, 28),
    }
    return roles


def _trip_roles(draw: Draw, season: str) -> dict[str, Any]:
    """A trip that fits the season: where to, how, what is seen and done there, what is brought back."""
    place, rides, seen, done, souvenir, _ = draw.choice(
        [row for row in table("ko", "trips") if row[5] == "y" or season != "겨울"]
    )
    sights, doings = draw.several(items(seen), 2), draw.several(items(done), 2)
    roles: dict[str, Any] = {
        "place": Word(place),
        "ride": Word(draw.choice(items(rides))),
        "seen": sights[0],
        "seen2": sights[1],
    }
    roles |= {"done": Verb(doings[0]), "done2": Verb(doings[1]), "souvenir": Word(souvenir)}
    return roles


def _dish_roles(draw: Draw) -> dict[str, Any]:
    """A dish and how it is made, and another one."""
    dish, other = draw.several(table("ko", "dishes"), 2)
    ingredients = items(dish[1])
    roles: dict[str, Any] = {f"step{i}": step for i, step in enumerate(items(dish[2]), 1)}
    roles |= {
        "dish": Word(dish[0]),
        "taste": dish[3],
        "dish2": Word(other[0]),
        "taste2": other[3],
        "ingredient": Word(ingredients[-1]),
    }
    roles |= {"ingredients": Word(", ".join(ingredients)), "shopping": Word(", ".join(ingredients[1:]))}
    return roles


def _work_roles(draw: Draw) -> dict[str, Any]:
    """A broken thing and its repair, a job, a skill."""
    thing, fault, mend, tool = draw.choice(table("ko", "broken"))
    roles: dict[str, Any] = {"broken": Word(thing), "fault": fault, "mend": Verb(mend), "tool": Word(tool)}
    job, job_place, task, event, result = draw.choice(table("ko", "jobs"))
    roles |= {
        "job": Word(job),
        "job_place": Word(job_place),
        "task": Verb(task),
        "work_event": event,
        "work_result": result,
    }
    skill, do_skill = draw.choice(table("ko", "skills"))
    return roles | {"skill": Word(skill), "do_skill": Verb(do_skill)}


def _story(draw: Draw) -> str:
    roles = cast(draw)
    topics = {**stories("ko", "stories"), **stories("ko", "tales")}
    text = tell(topics[draw.choice(list(topics))], draw, roles)
    outcome, weather = (
        (roles["weather_later"], roles["weather"])
        if roles["weather"] in text
        else (roles["fair_later"], roles["fairsentence"])
    )
    text = settle(text, weather, outcome, draw.choice(words("ko")["neutral"]))
    return polite(text, draw.choice(("다", "다", "어요", "어요", "습니다")))


def _note(draw: Draw) -> str:
    topics = stories("ko", "notes")
    return tell(topics[draw.choice(list(topics))], draw, cast(draw))


def _money(draw: Draw) -> dict[str, Any]:
    price, count = 100 * draw.between(5, 30), draw.between(2, 9)
    total = price * count
    paid = next(note for note in (5000, 10000, 20000, 30000) if note > total)
    amounts = {"price": price, "total": total, "paid": paid, "change": paid - total}
    return {key: f"{amount:,}" for key, amount in amounts.items()} | {"count": native(count)}


def _speech(draw: Draw, dialogue: list[tuple[str, str]], roles: dict[str, Any]) -> str:
    """Turns with their speakers: half of the documents as `이름: "..."`, half as `"..." 이름이 말했다.`"""
    speakers = {"A": roles["a"], "B": roles["b"]}
    if draw.chance(50):
        return "\n".join(f'{speakers[who].text}: "{text}"' for who, text in dialogue)
    lines, asked = [], False
    for who, text in dialogue:
        elder = not isinstance(speakers[who], Person)
        verb = (
            ("물으셨다" if elder else "물었다")
            if text[-1] == "?"
            else ("말씀하셨다" if elder else "대답했다" if asked else "말했다")
        )
        lines.append(f'"{text}" {speakers[who]:이} {verb}.')
        asked = text[-1] == "?"
    return polite("\n".join(lines), draw.choice(("다", "어요", "습니다")))


def _talk(draw: Draw) -> str:
    topics = {**stories("ko", "talk"), **stories("ko", "talk_family")}
    topic = draw.choice(list(topics))
    roles = cast(draw)
    sky = draw.choice(table("ko", "sky"))
    third = draw.choice(
        [name for name in words("ko")["names"] if name not in (roles["hero"].text, roles["friend"].text)]
    )
    roles |= {"weather_talk": sky[0], "weather_talk2": sky[1], "bring": Word(sky[2])} | _money(draw)
    roles |= {
        "fruit": Word(draw.choice(words("ko")["fruits"])),
        "people": native(draw.between(2, 6)),
        "food": roles["outing_food"],
    }
    roles |= {
        "fable": roles["animal"],
        "fable2": roles["animal2"],
        "elder2": Word(draw.choice(("엄마", "아빠"))),
    }
    elders = {"phone call to grandmother": Word("할머니"), "getting up": roles["elder"]}
    roles |= {
        "a": roles["hero"],
        "b": elders.get(topic, roles["friend"]),
        "friend2": Person(third, roles["hero"].familiar),
    }
    return _speech(draw, turns(topics[topic], draw, roles), roles)


def document(draw: Draw) -> str:
    """One Korean document: story, dialogue, note or facts."""
    kind = draw.choice((_story, _story, _story, _story, _talk, _talk, _note, facts))
    return kind(draw)


def mixed_document(draw: Draw) -> str:
    """A Korean document with English terms and sentences inside."""
    lists = words("ko")
    if draw.chance(25):
        pairs = draw.several(table("ko", "terms"), draw.between(4, 8))
        quoted = [(Word(korean), Word(f'"{english}"', sound)) for korean, english, sound in pairs]
        form = draw.choice(
            (
                "{0:은} 영어로 {1:이라고} 한다.",
                "{0:은} 영어로 {1:이에요}.",
                "{0} - {1}",
                "{1:은} 한국어로 {0:이라고} 합니다.",
            )
        )
        return "\n".join(form.format(*pair) for pair in quoted)
    topics = stories("ko", "mixed_talk")
    topic = draw.choice(list(topics))
    names = [Person(name, False) for name in draw.several(lists["names"], 2)]
    tech, jobs = ([Word(t, s) for t, s, kind in table("ko", "work_terms") if kind == key] for key in "tj")
    roles: dict[str, Any] = {"a": names[0], "b": names[1], "weekday": draw.choice(lists["weekdays"])}
    message, last, cause, cure = draw.choice(table("ko", "errors"))
    roles |= {"error": Word(f"'{message}'", last), "cause": cause, "cure": cure}
    roles |= {"term": draw.choice(tech)} | dict(zip(("job", "job2"), draw.several(jobs, 2), strict=True))
    roles |= {"city": draw.choice(table("world", "capitals"))[2]}
    roles |= dict(zip(("sport", "sport2"), map(Word, draw.several(lists["sports"], 2)), strict=True))
    roles |= {"hour": draw.choice(("한", "두", "세", "네", "아홉", "열", "열한"))}
    roles |= dict(zip(("coffee", "coffee2"), draw.several(lists["coffees"], 2), strict=True))
    roles |= dict(zip(("english", "korean"), draw.choice(table("ko", "phrases")), strict=True))
    korean, english, sound = draw.choice(table("ko", "terms"))
    roles |= {"word_ko": Word(korean), "word_en": Word(english, sound)}
    return _speech(draw, turns(topics[topic], draw, roles), roles)
