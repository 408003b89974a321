"""Choices from a head with classes follow the distribution of all tokens, however few classes are read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import Failure
from braingpt.inference.choice import NO_CUTS, Adjustment, Cuts, candidates
from braingpt.inference.class_search import ClassSearch
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.model.heads.head import AllTokens, RowsRead
from braingpt.model.heads.vocabulary_columns import VocabularyColumns

HIDDEN = 6
DRAWS = 1500
# Tokens, words a class and the size of the weights; the last class of each has fewer tokens.
HEADS = [(23, 5, 0.8), (60, 16, 0.4), (7, 3, 0.5), (40, 9, 0.6)]


def toy(seed, vocab, width, scale=1.0, rows=1):
    """A head with random weights and classes, in float64, and hidden states."""
    torch.manual_seed(seed)
    head = VocabularyColumns(vocab, HIDDEN, width).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=scale)
    head.set_classes(torch.randperm(vocab))
    return head.requires_grad_(False), torch.randn(rows, HIDDEN, dtype=torch.float64)


def reference(head, x_D, sampling, seen=()):
    """The distribution of the next token, from a loop over tokens; another way than the code's."""
    class_log = (head.class_weight @ x_D + head.class_bias).log_softmax(0)
    log = torch.empty(len(head.slot), dtype=torch.float64)
    for number in range(head.classes):
        tokens = [t for t in range(len(log)) if head.slot[t] // head.width == number]
        scores = torch.stack([head.weight[head.slot[t]] @ x_D for t in tokens])
        log[tokens] = class_log[number] + scores.log_softmax(0)
    total = log.exp().sum()
    assert abs(total - 1) < 1e-12
    for token in seen:
        log[token] *= sampling.repetition_penalty
    log[list(sampling.banned)] = -math.inf
    weight = ((log - log.max()) / sampling.temperature).exp()
    order = sorted(range(len(log)), key=lambda t: -weight[t])[: sampling.top_k]
    kept, before, whole = [], 0.0, sum(weight[t] for t in order)
    for token in order:
        if before < (sampling.top_p or 2) * whole and weight[token] >= (sampling.min_p or 0):
            kept.append(token)
        before += weight[token]
    share = torch.zeros_like(weight)
    share[kept] = weight[kept]
    return share / share.sum()


def far(found_V, expected_V):
    """How many standard deviations chi-square lies above its mean; infinite for impossible draws."""
    if found_V[expected_V == 0].sum():
        return math.inf
    expected = DRAWS * expected_V
    # Cells of few draws are taken together.
    rare = expected < 5
    observed = torch.cat([found_V[~rare], found_V[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    observed, expected = observed[expected > 0], expected[expected > 0]
    square = ((observed - expected) ** 2 / expected).sum()
    freedom = max(1, len(expected) - 1)
    return float((square - freedom) / math.sqrt(2 * freedom))


def counts(head, x_1D, sampling, seen=()):
    """How often each token is drawn."""
    sampler = Sampler(sampling)
    found_V = torch.zeros(len(head.slot))
    for _ in range(DRAWS):
        if sampling.repetition_penalty != 1:
            # The same tokens are seen at each draw.
            sampler = Sampler(Sampling(**{**vars(sampling), "seed": int(torch.randint(2**40, ()))}))
            sampler.note(0, seen)
        found_V[sampler(head.next_tokens(x_1D))] += 1
    return found_V


SETTINGS = {
    "cold": {"temperature": 0.3},
    "plain": {},
    "warm": {"temperature": 2.5},
    "banned": {"temperature": 0.8, "banned": (0, 3, 5, 6)},
    "penalty": {"temperature": 1.5, "repetition_penalty": 1.7},
    "top-k": {"top_k": 4},
    "top-k of few": {"top_k": 2, "temperature": 5.0},
    "top-p": {"top_p": 0.8},
    "top-p warm": {"top_p": 0.6, "temperature": 2.5},
    "min-p": {"min_p": 0.2},
    "all": {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "banned": (1, 2)},
    "all and a penalty": {"temperature": 1.3, "top_k": 9, "top_p": 0.95, "repetition_penalty": 1.3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_follow_the_distribution(name):
    vocab, width, scale = HEADS[sorted(SETTINGS).index(name) % len(HEADS)]
    head, x_1D = toy(len(name), vocab, width, scale)
    sampling = Sampling(**SETTINGS[name], seed=11)
    seen = (0, 1, 4, 6) if sampling.repetition_penalty != 1 else ()
    expected_V = reference(head, x_1D[0], sampling, seen)
    assert far(counts(head, x_1D, sampling, seen), expected_V) < 5


def test_the_comparison_finds_wrong_draws():
    head, x_1D = toy(5, 23, 5, 0.4)
    found_V = counts(head, x_1D, Sampling(0.9, seed=1))
    assert far(found_V, reference(head, x_1D[0], Sampling(0.9))) < 5
    for wrong in (
        Sampling(1.2),
        Sampling(0.9, top_k=10),
        Sampling(0.9, min_p=0.02),
        Sampling(0.9, top_p=0.97),
    ):
        assert far(found_V, reference(head, x_1D[0], wrong)) > 5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    vocab=st.integers(7, 60),
    width=st.integers(3, 16),
    scale=st.floats(0.05, 2),
    temperature=st.floats(0.2, 4),
    top_k=st.none() | st.integers(1, 70),
    top_p=st.none() | st.floats(0.01, 0.999),
    min_p=st.none() | st.floats(0.001, 1),
    penalty=st.just(1.0) | st.floats(1, 5),
    data=st.data(),
)
def test_candidates_are_those_of_the_whole_distribution(
    seed, vocab, width, scale, temperature, top_k, top_p, min_p, penalty, data
):
    head, x_1D = toy(seed, vocab, width, scale)
    banned, seen = (tuple(data.draw(st.sets(st.integers(0, vocab - 1), max_size=5))) for _ in range(2))
    sampling = Sampling(temperature, top_k, top_p, None, banned, min_p, penalty)
    expected_V = reference(head, x_1D[0], sampling, seen)
    expected = set(expected_V.nonzero()[:, 0].tolist())
    adjustment, cuts = Adjustment(penalty), Cuts(top_k, top_p, min_p)
    if banned:
        adjustment.banned_V = torch.zeros(vocab, dtype=torch.bool).index_fill(0, torch.tensor(banned), True)
    if penalty != 1:
        adjustment.seen_BV = torch.zeros(1, vocab, dtype=torch.bool)
        adjustment.seen_BV[0, list(seen)] = True
    log_1V = adjustment.of_all(head.next_tokens(x_1D).logits().log_softmax(1))
    weight_1J, ids_1J = candidates(AllTokens(log_1V).logits(), temperature, cuts)
    assert set(ids_1J[weight_1J > 0].tolist()) == expected
    for token in range(vocab):
        if math.isfinite(log_1V[0, token]):
            search = ClassSearch(head.next_tokens(x_1D), 0, adjustment, temperature, cuts)
            # A token is asked for after its class was read, whose log-probability is another sum.
            found = search._class(int(head.slot[token]) // width)
            log = float(found.log_S[found.ids_S == token])
            assert search.is_candidate(log) == (token in expected)
    greedy = int(log_1V.argmax())
    assert ClassSearch(head.next_tokens(x_1D), 0, adjustment).likeliest() == greedy
    assert Cuts() == NO_CUTS


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), name=st.sampled_from(sorted(SETTINGS)), rows=st.integers(2, 5))
def test_a_batch_draws_what_each_row_draws_alone(seed, name, rows):
    head, x_BD = toy(seed, 40, 7, 0.7, rows)
    options = {**SETTINGS[name], "seed": seed}
    together = Sampler(Sampling(**options), rows)
    alone = [Sampler(Sampling(**{**options, "seed": seed + row})) for row in range(rows)]
    for row, sampler in enumerate(alone):
        sampler.note(0, [row, 3])
        together.note(row, [row, 3])
    for _ in range(4):
        found = together(head.next_tokens(x_BD)).tolist()
        assert found == [int(one(head.next_tokens(x_BD[i, None]))) for i, one in enumerate(alone)]


def rows_of(head, x_1D, sampling, draws=1):
    """Mean number of rows that a choice multiplies with."""
    sampler, head.rows_read = Sampler(sampling), RowsRead()
    for _ in range(draws):
        sampler(head.next_tokens(x_1D))
    counted, head.rows_read = head.rows_read, None
    assert counted.tokens == draws
    return counted.rows / draws


def test_few_classes_are_read_where_the_distribution_is_sharp():
    head, x_1D = toy(3, 160, 16)
    head.class_bias[4] = 50
    one = head.classes + head.width
    for options in ({}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {"repetition_penalty": 1.2}):
        assert rows_of(head, x_1D, Sampling(0, **options)) == one
        assert rows_of(head, x_1D, Sampling(0.7, seed=1, **options), 20) <= one + 16
    # Nothing is counted while nobody asks.
    assert head.rows_read is None


def test_at_most_all_rows_are_read_where_it_is_flat():
    head, x_1D = toy(3, 60, 16)
    for parameter in head.parameters():
        parameter.zero_()
    for options in ({}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 1.0}):
        assert rows_of(head, x_1D, Sampling(2.0, seed=1, **options), 20) <= 60 + head.classes


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-30, 0.01])
def test_the_coldest_draw_is_the_likeliest_token(temperature):
    for seed in range(5):
        head, x_1D = toy(seed, 60, 8, 3)
        likeliest = int(head.next_tokens(x_1D).logits().argmax())
        assert int(Sampler(Sampling(temperature, seed=0))(head.next_tokens(x_1D))) == likeliest


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_p": 0.9}, {"top_k": 5, "min_p": 0.1}])
def test_broken_weights_are_not_hidden(options):
    head, x_1D = toy(0, 30, 8)
    head.weight[:] = math.nan
    with pytest.raises(Failure, match="NaN"):
        Sampler(Sampling(**options))(head.next_tokens(x_1D))
    with pytest.raises(Failure, match="NaN"):
        Sampler(Sampling(**options))(toy(0, 30, 8)[0].next_tokens(x_1D * math.nan))


def test_the_classes_can_be_set_loaded_and_moved():
    head, x_1D = toy(1, 30, 8)
    other = toy(2, 30, 8)[0]
    # Read once, so that the tokens of its classes are known.
    other.next_tokens(x_1D).words(0, 0)
    other.load_state_dict(head.state_dict())
    with torch.inference_mode():
        third = VocabularyColumns(30, HIDDEN, 8).double()
        third.load_state_dict(head.state_dict())
    log_V = head.logits(x_1D)[0]
    for one in (head, other, third):
        for number in range(head.classes):
            with torch.inference_mode():
                log_S, ids_S = one.next_tokens(x_1D).words(0, number)
                assert torch.allclose(log_S + one.class_log_probs(x_1D[0])[number], log_V[ids_S])
