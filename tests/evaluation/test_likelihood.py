import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.evaluation.likelihood import Pair, encode_pair, likelihoods
from braingpt.tokenizer import Tokenizer
from tests.conftest import SMALL, awake

T = Tokenizer.default()


def by_hand(model, pair):
    """One pair alone, token by token."""
    ids = [*pair.context, *pair.continuation]
    with torch.no_grad():
        log_LV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(len(pair.context), len(ids))
    return sum(float(log_LV[p - 1, ids[p]]) for p in places), all(
        int(log_LV[p - 1].argmax()) == ids[p] for p in places
    )


def test_each_pair_in_any_batch_is_as_alone(architecture):
    model = awake(SMALL[architecture]).eval()
    draw = torch.Generator().manual_seed(0)
    ids = lambda count: torch.randint(97, (count,), generator=draw).tolist()  # noqa: E731
    pairs = [Pair(ids(1 + n % 7), ids(1 + n % 3)) for n in range(20)]
    # Answers of one token: read once.
    pairs += [Pair(pairs[0].context, [token]) for token in (3, 4, 5)]
    best = int(model(torch.tensor([pairs[0].context])).logits[0, -1].argmax())
    pairs.append(Pair(pairs[0].context, [best]))
    found = {one.index: one for one in likelihoods(model, pairs, longest=64, tokens=24)}
    assert sorted(found) == list(range(len(pairs))) and found[len(pairs) - 1].greedy
    for index, pair in enumerate(pairs):
        nats, greedy = by_hand(model, pair)
        assert (
            found[index].nats == pytest.approx(nats, abs=1e-4)
            and found[index].greedy == greedy
            and found[index].cut == 0
        )


def test_too_long_a_context_loses_its_beginning_but_for_the_marker():
    model = awake(SMALL["dense"]).eval()
    long = Pair([1, *range(2, 40)], [50, 51])
    (found,) = likelihoods(model, [long], longest=10)
    # Ten tokens are read: the marker, eight of the context, and the first judged one.
    short = Pair([1, *range(31, 40)], [50, 51])
    assert found.cut == 30 and found.nats == pytest.approx(
        by_hand(model, Pair([1, *range(32, 40)], [50, 51]))[0], abs=1e-4
    )
    # One more would not fit.
    assert len([*short.context, *short.continuation][:-1]) == 11
    (endless,) = likelihoods(model, [Pair([1], list(range(2, 60)))], longest=8)
    assert endless.cut == 50 and endless.nats < 0


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab 가나다.", max_size=8), st.text(alphabet="ab 가나.", min_size=1, max_size=6))
def test_a_pair_is_its_text_and_never_empty(context, continuation):
    pair = encode_pair(T, context, continuation, "ko")
    assert pair.context[0] == T.markers["ko"] and pair.continuation
    assert T.decode([*pair.context[1:], *pair.continuation]) == context + continuation


def test_spaces_go_with_the_continuation_and_the_language_is_that_of_the_context():
    spaced, plain = encode_pair(T, "The river ", "flows"), encode_pair(T, "The river", " flows")
    assert spaced == plain and spaced.context[0] == T.markers["en"]
    assert encode_pair(T, "", "한강은 흐른다.").context == [T.markers["ko"]]
    assert encode_pair(T, "1 + 1 =", " 2").context[0] == T.eot
