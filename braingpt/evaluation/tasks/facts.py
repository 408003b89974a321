"""Generated facts about people ("수진의 고양이 이름은 두부예요."), taught or shown once and asked for by
their beginning.

No text that a model was trained on holds them, so a fact that comes back was learned in one shot.
"""

import itertools
import random
import statistics

from braingpt.inference.engine import generate_batch
from braingpt.inference.text_stream import prompt_ids
from braingpt.model.interface import CausalModel
from braingpt.tokenizer import Tokenizer


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split(", "))


PEOPLE = {
    "ko": _listed("수진, 민호, 지우, 하늘, 영수, 은정, 태양, 서연, 도윤, 보라, 경민, 가람, 나래, 다솜, 라온"),
    "en": _listed(
        "Anna, Peter, Ruth, Oscar, Mabel, Hugo, Clara, Victor, Elsie, Martin, Ivy, Walter, Nora, Felix, Olive"
    ),
}
# Beginning, end, and the values the end may have.
FACTS = {
    "ko": (
        (
            "{}의 고양이 이름은",
            " {}예요.",
            _listed("두부, 까미, 보리, 나비, 호두, 우유, 모카, 자두, 후추, 가지, 고추, 하루"),
        ),
        (
            "{}의 고향은",
            " {}이다.",
            _listed("부산, 강릉, 목포, 안동, 춘천, 군산, 남원, 울산, 통영, 속초, 포항, 순천"),
        ),
        (
            "{}의 생일은",
            " {}입니다.",
            _listed("삼월 사일, 유월 구일, 칠월 오일, 팔월 십일, 구월 이일, 오월 칠일, 이월 육일, 사월 삼일"),
        ),
        (
            "{}의 비밀번호는",
            " {}입니다.",
            _listed("4711, 9036, 5218, 7742, 1683, 3059, 8827, 6490, 2975, 1144, 9901, 3368"),
        ),
        (
            "{}가 좋아하는 음식은",
            " {}이다.",
            _listed("비빔밥, 된장국, 호떡, 팥죽, 갈비찜, 잡채밥, 송편, 만둣국"),
        ),
    ),
    "en": (
        (
            "{}'s cat is called",
            " {}.",
            _listed("Biscuit, Pepper, Ginger, Marble, Domino, Tiger, Cosmo, Velvet, Pickle, Ziggy"),
        ),
        (
            "{} was born in",
            " {}.",
            _listed("Lisbon, Dublin, Oslo, Vienna, Bergen, Naples, Geneva, Prague, Cairo, Boston"),
        ),
        (
            "The birthday of {} is",
            " {}.",
            _listed("March 4, June 9, July 25, August 10, May 17, April 3, October 30, January 21"),
        ),
        (
            "The password of {} is",
            " {}.",
            _listed("4711, 9036, 5218, 7742, 1683, 3059, 8827, 6490, 2975, 1144, 9901"),
        ),
        (
            "The favourite food of {} is",
            " {}.",
            _listed("pancakes, noodles, dumplings, goulash, risotto, porridge, waffles, lentils"),
        ),
    ),
}

# Tokens generated after a prompt: more than any end of a fact has.
ANSWER_TOKENS = 12
# Another sentence before the question.
DISTRACTOR = {"ko": "오늘은 비가 왔다. ", "en": "It was raining today. "}


def facts(
    language: str, taught: int, seed: int = 0
) -> tuple[list[tuple[str, str]], list[tuple[str, tuple[str, ...]]]]:
    """Facts to teach, and questions about people of whom no such fact is taught.

    Args:
        language: "ko" or "en".
        taught: Facts to teach, at most as many as there are.
        seed: Seed of the draw.

    Returns:
        (beginning, end) of each fact to teach, and (beginning, possible values) of the other facts, of which
        every value is false.
    """
    draw = random.Random(seed)
    cases = [(person, fact) for person, fact in itertools.product(PEOPLE[language], FACTS[language])]
    draw.shuffle(cases)
    known = [
        (fact[0].format(person), fact[1].format(draw.choice(fact[2]))) for person, fact in cases[:taught]
    ]
    return known, [(fact[0].format(person), fact[2]) for person, fact in cases[taught:]]


def continuations(model: CausalModel, tokenizer: Tokenizer, prompts: list[str], language: str) -> list[str]:
    """What the model generates after each prompt, greedily.

    Prompts of equal length are read together, so that none is padded.
    """
    ids = [prompt_ids(tokenizer, prompt, language) for prompt in prompts]
    written: dict[int, str] = {}
    for _, group in itertools.groupby(
        sorted(range(len(ids)), key=lambda n: len(ids[n])), key=lambda n: len(ids[n])
    ):
        numbers = list(group)
        new = generate_batch(
            model, [ids[n] for n in numbers], ANSWER_TOKENS, temperature=0, stop=[tokenizer.eot]
        )
        written |= {n: tokenizer.decode(tokens) for n, tokens in zip(numbers, new, strict=True)}
    return [written[n] for n in range(len(ids))]


def share_recalled(
    model: CausalModel, tokenizer: Tokenizer, known: list[tuple[str, str]], language: str, before: str = ""
) -> float:
    """Share of the facts that the model completes to the letter.

    Args:
        model: The model, alone or beside a memory.
        tokenizer: The model's vocabulary.
        known: (beginning, end) of each fact.
        language: Language of the facts.
        before: Text before each beginning.
    """
    written = continuations(model, tokenizer, [before + start for start, _ in known], language)
    return statistics.mean(text.startswith(end) for text, (_, end) in zip(written, known, strict=True))
