from collections import Counter

import pytest
import torch

from braingpt.evaluation.tasks.in_context import ITEM_TASKS, measure
from braingpt.model.lm import Output, build
from braingpt.tokenizer import Tokenizer
from tests.tiny_runs import tiny

T = Tokenizer.default()


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize("task", list(ITEM_TASKS))
def test_items_are_the_same_every_time_and_can_be_solved_from_their_context_alone(task, language):
    items = ITEM_TASKS[task](language, 200)
    assert items == ITEM_TASKS[task](language, 200) and len({item.context for item in items}) == 200
    # Guessing, or always the same place, gives a quarter.
    assert set(Counter(item.answer for item in items).values()) == {50}
    for item in items:
        assert len(set(item.options)) == 4
        # Each answer is seen before, and in the sorting tasks equally often.
        for option in item.options:
            assert item.context.count(option) >= (1 if task == "binding" else 2)


def test_the_bound_word_is_the_answer():
    for language, sentence in (("ko", "{}의 뜻은{}이다."), ("en", "The word {} means{}.")):
        for item in ITEM_TASKS["binding"](language, 40):
            asked = (
                item.context.rsplit(". ", 1)[1]
                .removeprefix("The word ")
                .removesuffix(" means")
                .removesuffix("의 뜻은")
            )
            assert sentence.format(asked, item.options[item.answer]) in item.context


def test_a_word_asked_for_is_not_among_the_examples():
    for item in ITEM_TASKS["classify"]("ko", 200):
        *shown, asked = item.context.split("\n")
        assert len(shown) == 8 and asked.removesuffix(":") not in [line.split(":")[0] for line in shown]


class Copier(torch.nn.Module):
    """Gives the token that came after the longest earlier occurrence of what was read last: a perfect
    associative memory.
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.device = config, torch.device("cpu")

    def forward(self, ids_BL, at_BL):
        logits = torch.zeros(*ids_BL.shape, self.config.vocab)
        for row, ids in enumerate(ids_BL.tolist()):
            for place in range(len(ids)):
                matches = [(self._alike(ids, place, earlier), ids[earlier + 1]) for earlier in range(place)]
                if matches:
                    logits[row, place, max(matches)[1]] = 20.0
        return Output(logits=logits[at_BL])

    @staticmethod
    def _alike(ids, place, earlier):
        length = 0
        while length <= earlier and ids[earlier - length] == ids[place - length]:
            length += 1
        return length


def test_one_that_remembers_solves_binding_and_one_that_knows_nothing_guesses():
    config = tiny("dense").model
    assert measure(Copier(config), T, "binding", "en", 128, 12).value == 1
    # A fresh model holds all tokens alike but for noise.
    guess = measure(build(config).float(), T, "binding", "ko", 128, 80)
    assert guess.chance == 0.25 and guess.interval()[0] < 0.3 < 0.6 and guess.about["cut"] == 0
