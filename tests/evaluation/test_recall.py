import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.evaluation.tasks.recall import recall_accuracy, recall_batch, recall_figures
from braingpt.model.lm import Output, build
from tests.conftest import SMALL


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 16), st.integers(0, 20), st.integers(48, 90), st.integers(0, 10**6))
def test_every_query_has_its_value(pairs, more, vocab, seed):
    length, third = 4 * pairs + more, vocab // 3
    ids, targets = recall_batch(seed, 3, 5, length, pairs, vocab)
    again = recall_batch(seed, 3, 5, length, pairs, vocab)
    assert torch.equal(ids, again[0]) and torch.equal(targets, again[1])
    assert ids.shape == targets.shape == (5, length) and int(ids.min()) >= 0 and int(ids.max()) < vocab
    for row, target in zip(ids.tolist(), targets.tolist(), strict=True):
        bound = dict(zip(row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        asked = [(key, value) for key, value in zip(row, target, strict=True) if value != -100]
        # Each key once, with its own value.
        assert len(bound) == pairs and sorted(asked) == sorted(bound.items())
        rest = [token for place, token in enumerate(row) if place >= 2 * pairs and target[place] == -100]
        # Nothing between the queries is a key or a value.
        assert all(token >= 2 * third for token in rest)
        assert all(third <= value < 2 * third for value in bound.values())


def test_another_step_or_seed_is_another_batch():
    batches = [recall_batch(seed, step, 2, 64, 8, 60)[0] for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert not any(
        torch.equal(a, b)
        for a, b in ((batches[0], batches[1]), (batches[0], batches[2]), (batches[1], batches[2]))
    )


@pytest.mark.parametrize(
    ("length", "pairs", "vocab", "message"),
    [(15, 4, 60, "at least 16"), (64, 8, 21, "a third"), (64, 0, 60, "0 pairs")],
)
def test_what_does_not_fit_is_refused(length, pairs, vocab, message):
    with pytest.raises(UserError, match=message):
        recall_batch(0, 0, 1, length, pairs, vocab)


def test_accuracy_of_a_fresh_model_is_chance():
    assert recall_accuracy(build(SMALL["v2-memory"]), 32, 8, rows=8, batches=2) < 0.2


def test_recall_is_counted_row_by_row_and_among_the_bound_values():
    class Knows(torch.nn.Module):
        """Knows the values of the even keys; of the odd ones only that the answer is a value bound in the
        row.
        """

        config, device = SMALL["v2"], torch.device("cpu")

        def forward(self, ids_BL, at_BL):
            logits = torch.zeros(*ids_BL.shape, 97)
            for row, ids in enumerate(ids_BL.tolist()):
                bound = dict(zip(ids[0:16:2], ids[1:16:2], strict=True))
                for place, token in enumerate(ids):
                    if token in bound and token % 2 == 0:
                        logits[row, place, bound[token]] = 1
                    elif token in bound:
                        logits[row, place, 96] = 2
                        logits[row, place, bound[token]] = 1
            return Output(logits=logits[at_BL])

    exact, bound = recall_figures(Knows(), 40, 8, rows=4, batches=2)
    keys = [
        key
        for step in range(2)
        for row in recall_batch(10**6, step, 4, 40, 8, 97)[0].tolist()
        for key in row[0:16:2]
    ]
    assert exact.value == sum(key % 2 == 0 for key in keys) / 64 and bound.value == 1
    assert len(exact.amount) == 8 and bound.chance == 1 / 8
