import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import Failure, UserError
from braingpt.inference.sampling import Sampler, Sampling, check_ids
from braingpt.model.heads.head import AllTokens

LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.5]])
TOKENS = AllTokens(LOGITS)


def shares(sampling: Sampling, draws: int = 4000) -> torch.Tensor:
    sampler = Sampler(sampling)
    return torch.bincount(torch.cat([sampler(TOKENS) for _ in range(draws)]), minlength=5) / draws


def test_draws_follow_the_distribution_of_the_temperature():
    for temperature in (0.5, 1.0, 2.0):
        expected = (LOGITS[0] / temperature).softmax(0)
        assert torch.allclose(shares(Sampling(temperature, seed=1)), expected, atol=0.03)


def test_top_k_and_top_p_cut_and_renormalise():
    # .09 .64 .23 .01 .05
    p = LOGITS[0].softmax(0)
    two = torch.where(p >= p[2], p, 0)
    assert torch.allclose(shares(Sampling(top_k=2, seed=2)), two / two.sum(), atol=0.03)
    # .64 alone is short of .7
    assert torch.allclose(shares(Sampling(top_p=0.7, seed=3)), two / two.sum(), atol=0.03)
    # the likeliest alone holds .6
    assert shares(Sampling(top_p=0.6, seed=4), 50)[1] == 1
    assert shares(Sampling(top_k=1, seed=5), 50)[1] == 1
    assert torch.allclose(shares(Sampling(top_p=1.0, top_k=99, seed=6)), p, atol=0.03)


def test_greedy_needs_no_chance_and_bans_hold():
    assert Sampler(Sampling(0))(TOKENS).item() == 1
    assert Sampler(Sampling(0, banned=(1,)))(TOKENS).item() == 2
    assert shares(Sampling(seed=1, banned=(1, 2)), 300)[[1, 2]].sum() == 0


def test_extreme_temperatures_stay_numbers():
    assert Sampler(Sampling(1e-30, seed=0))(AllTokens(LOGITS * 1e4)).item() == 1
    assert 0 <= Sampler(Sampling(100, seed=0))(AllTokens(LOGITS * 1e4)).item() < 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=40),
    st.integers(1, 45),
    st.floats(0.01, 1),
    st.integers(0, 2**40),
)
def test_every_draw_is_among_the_allowed(values, k, p, seed):
    logits = torch.tensor([values])
    token = Sampler(Sampling(1.0, k, p, seed))(AllTokens(logits)).item()
    probs = logits[0].double().softmax(0)
    likelier = probs > probs[token] + 1e-9
    assert likelier.sum() < k
    kept = probs.topk(min(k, len(values))).values.sum()
    assert probs[likelier].sum() < p * kept + 1e-6


def test_rows_draw_alone_and_leave_the_global_state_alone():
    logits = torch.randn(3, 50)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    together = [Sampler(Sampling(seed=7), rows=3)(AllTokens(logits))]
    alone = [Sampler(Sampling(seed=7 + row))(AllTokens(logits[row : row + 1])).item() for row in range(3)]
    assert together[0].tolist() == alone
    assert torch.equal(torch.get_rng_state(), before)
    fresh = {tuple(Sampler(Sampling())(AllTokens(logits[:1] * 0)).item() for _ in range(4)) for _ in range(3)}
    # no seed: another one every time
    assert len(fresh) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 0.0},
        {"min_p": math.nan},
        {"repetition_penalty": 0.9},
        {"repetition_penalty": math.inf},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", ".")):
        Sampling(**wrong)


def test_broken_logits_are_not_hidden():
    with pytest.raises(Failure, match="NaN"):
        Sampler(Sampling(0))(AllTokens(torch.tensor([[1.0, math.nan]])))


def test_at_least_one_token_is_not_banned():
    with pytest.raises(UserError, match="every token is banned"):
        Sampler(Sampling(banned=tuple(range(5))))(TOKENS)


def test_the_penalty_multiplies_log_probabilities_of_noted_and_chosen_tokens():
    log = LOGITS[0].log_softmax(0)
    sampler = Sampler(Sampling(0, repetition_penalty=5.0))
    sampler.note(0, [1])
    assert log[2] > 5 * log[1] > log[0] > 5 * log[2]
    # Token 2 has been chosen when the second choice is made.
    assert [sampler(TOKENS).item() for _ in range(2)] == [2, 1]


def test_ids_are_checked():
    assert check_ids((1, 2), 3) == [1, 2]
    for wrong, message in (([], "at least one token"), ([3], "outside"), ([-1], "outside")):
        with pytest.raises(UserError, match=message):
            check_ids(wrong, 3)
