"""Our own tasks, in Korean and English: what can a model take from its context alone?

No file is read, and the same items come every time.

- *binding*: each of several new words gets a meaning, in one sentence each, and one of the words is asked
  back. All offered answers are in the context and are right equally often, so knowing the language gives
  nothing: chance is one in four.

      The word dax means bread. The word wug means horse. ... The word dax means -> bread

- *classify*: words with the kind of thing they are, two of each of four kinds, and one word more (48 words a
  language).

      dog: animal / bread: food / ... / horse: -> animal

- *classify-new*: the same with new words for the kinds, different in each item: what remains is what the
  examples teach.

The model's answer is the option that it finds likeliest after the text, by the sum over the option's tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from braingpt.data.sample.grammar import Draw
from braingpt.evaluation.likelihood import encode_pair, likelihoods
from braingpt.evaluation.tasks.vocabulary import KINDS, NEW
from braingpt.evaluation.uncertainty import Figure
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer

# Items of a task in each language.
ITEMS = 400
# New words in an item of binding.
BOUND = 4
# Examples of each kind in an item of classification.
SHOTS = 2
SENTENCES = {"ko": ("{}의 뜻은", " {}이다."), "en": ("The word {} means", " {}.")}


@dataclass(frozen=True)
class Item:
    """A text, the options to continue it, and the number of the right one."""

    context: str
    options: tuple[str, ...]
    answer: int


def binding(language: str, count: int = ITEMS) -> list[Item]:
    """Word-binding items; each place in the context is asked for equally often."""
    draw, (beginning, end) = Draw(1), SENTENCES[language]
    nouns = [word for words in KINDS[language].values() for word in words]
    items = []
    for number in range(count):
        new, meanings = draw.several(NEW[language], BOUND), draw.several(nouns, BOUND)
        bound = [
            beginning.format(word) + end.format(meaning) for word, meaning in zip(new, meanings, strict=True)
        ]
        answer = number % BOUND
        items.append(
            Item(
                " ".join([*bound, beginning.format(new[answer])]),
                tuple(f" {meaning}" for meaning in meanings),
                answer,
            )
        )
    return items


def classify(language: str, count: int = ITEMS) -> list[Item]:
    """Few-shot classification with the kinds' own names."""
    return _classified(language, count, lambda draw: list(KINDS[language]))


def classify_new(language: str, count: int = ITEMS) -> list[Item]:
    """Few-shot classification with names that are new in each item."""
    return _classified(language, count, lambda draw: draw.several(NEW[language], len(KINDS[language])))


def _classified(language: str, count: int, named: Callable[[Draw], list[str]]) -> list[Item]:
    draw, kinds = Draw(2), list(KINDS[language].values())
    items = []
    for number in range(count):
        answer, names = number % len(kinds), named(draw)
        # One word more than the examples: the last of each kind can be the question.
        words = [draw.several(kind, SHOTS + 1) for kind in kinds]
        shown = [
            f"{word}: {name}" for name, drawn in zip(names, words, strict=True) for word in drawn[:SHOTS]
        ]
        lines = [*draw.several(shown, len(shown)), f"{words[answer][-1]}:"]
        items.append(Item("\n".join(lines), tuple(f" {name}" for name in names), answer))
    return items


ITEM_TASKS: dict[str, Callable[..., list[Item]]] = {
    "binding": binding,
    "classify": classify,
    "classify-new": classify_new,
}


def measure(
    model: LanguageModel, tokenizer: Tokenizer, task: str, language: str, context: int, count: int = ITEMS
) -> Figure:
    """The share of a task's items that the model answers right.

    Args:
        model: The model.
        tokenizer: The model's vocabulary.
        task: One of `ITEM_TASKS`.
        language: "ko" or "en".
        context: Tokens that the model reads, at most.
        count: Items.

    Returns:
        The accuracy; its units are items.
    """
    items = ITEM_TASKS[task](language, count)
    pairs = [
        encode_pair(tokenizer, item.context, option, language) for item in items for option in item.options
    ]
    score_X, cut = np.empty(len(pairs)), 0
    for found in likelihoods(model, pairs, context):
        score_X[found.index] = found.nats
        cut += found.cut > 0
    options = len(items[0].options)
    right = score_X.reshape(-1, options).argmax(1) == [item.answer for item in items]
    about = {"longest_tokens": max(len(pair.context) + len(pair.continuation) for pair in pairs), "cut": cut}
    return Figure(
        task, language, "accuracy", right.astype(float), np.ones(len(items)), chance=1 / options, about=about
    )
