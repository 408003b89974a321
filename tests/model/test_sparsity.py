"""What is called sparse is not computed, and what competes learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.kernels.competition import reference as kernel
from braingpt.kernels.two_four import two_four_mask
from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.columns.competition import Competition
from braingpt.model.config import ColumnsConfig, SharedColumnsConfig, SilencedColumnsConfig
from braingpt.recipes import load_recipe, shipped
from tests.conftest import SMALL, awake


def columns_of(sparse: bool):
    shape = dict(count=8, width=8, active=2)
    torch.manual_seed(0)
    dense = SilencedColumns(32, SilencedColumnsConfig(firing=1, **shape), two_four=False).double()
    torch.nn.init.normal_(dense.down.weight, std=0.1)
    packed = SparseColumns(32, SharedColumnsConfig(shared=0, **shape)).double()
    packed.competition.load_state_dict(dense.competition.state_dict())
    with torch.no_grad():
        packed.weight[:, 0] = dense.up.weight.view(8, 8, 32)
        packed.weight[:, 1] = dense.down.weight.view(32, 8, 8).permute(1, 2, 0)
    return packed, dense


def test_winners_alone_equal_silencing_the_losers():
    """V2's packed columns compute what V1's masked ones do, in value and gradient."""
    packed, dense = columns_of(True)
    x = torch.randn(2, 17, 32, dtype=torch.float64, requires_grad=True)
    outputs = [part(x, None) for part in (packed, dense)]
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(outputs[0])
    grads = [
        torch.autograd.grad(out, (x, part.competition.router.weight), upstream)
        for out, part in zip(outputs, (packed, dense), strict=True)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    both = torch.autograd.grad(packed(x, None), packed.weight, upstream)[0]
    up, down = torch.autograd.grad(dense(x, None), (dense.up.weight, dense.down.weight), upstream)
    torch.testing.assert_close(both[:, 0], up.view(8, 8, 32))
    torch.testing.assert_close(both[:, 1], down.view(32, 8, 8).permute(1, 2, 0))


@pytest.mark.parametrize("name", ["nano-v1", "tiny-v1", "small-v1"])
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    lift=st.sampled_from([0.0, 2.0]),
    rounded=st.booleans(),
)
def test_at_most_a_twentieth_of_the_neurons_fires_for_any_token(name, seed, scale, lift, rounded):
    """Whatever the weights and the token; rounded to few values, many neurons are equally strong."""
    recipe, generator = load_recipe(name), torch.Generator().manual_seed(seed)
    layer = SilencedColumns(recipe.model.hidden, recipe.model.columns, recipe.model.two_four)
    fired = []
    layer.down.register_forward_pre_hook(lambda _module, args: fired.append((args[0] > 0).sum(-1)))
    with torch.no_grad():
        x = torch.randn(1, 24, recipe.model.hidden, generator=generator)
        # lifted, nearly all neurons of the first token fire
        weight = torch.randn(layer.up.weight.shape, generator=generator) + lift * x[0, 0]
        layer.up.weight.copy_(weight.sign() if rounded else scale * weight)
        layer(x.sign() if rounded else x, None)
    neurons = layer.up.out_features
    assert fired[0].max() <= 0.05 * neurons
    assert layer.columns.most_firing == neurons // 20 <= layer.columns.active * layer.columns.width
    if lift and not rounded:
        assert fired[0][0, ...] == layer.columns.most_firing, "the strongest do fire"


def test_those_that_fire_are_the_strongest_of_the_winners():
    torch.manual_seed(0)
    layer = SilencedColumns(
        16, SilencedColumnsConfig(count=8, width=8, active=3, firing=0.1), two_four=False
    ).double()
    x, seen = torch.randn(1, 50, 16, dtype=torch.float64), []
    layer.down.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    layer(x, None).sum().backward()
    winner, share, _ = layer.competition(x[0])
    act = (
        torch.relu(x[0] @ layer.up.weight.T).square().unflatten(-1, (8, 8))
        * torch.zeros(50, 8).double().scatter(1, winner, share)[..., None]
    )
    expected = torch.where(act.flatten(1) >= act.flatten(1).topk(6).values[:, -1:], act.flatten(1), 0)
    torch.testing.assert_close(seen[0], expected)


def test_every_recipe_of_v1_fires_a_twentieth_at_most():
    recipes = [load_recipe(name).model for name in shipped() if "-v1" in name]
    assert len(recipes) >= 6
    for model in recipes:
        neurons = model.columns.count * model.columns.width
        assert 0.045 * neurons < model.columns.most_firing <= 0.05 * neurons
    with pytest.raises(
        UserError,
        match=r"model\.columns\.firing \(0\.001\) of 32 columns of 16 neurons "
        r"is less than one neuron; it takes 0\.002",
    ):
        load_recipe("nano-v1", ["model.columns.firing=0.001"])


def test_losing_columns_are_never_read():
    """Poison in a column that wins no token changes nothing; a mask over a dense product would spread it."""
    packed, dense = columns_of(True)
    x = torch.randn(1, 1, 32, dtype=torch.float64)
    with torch.no_grad():
        winners = packed.competition(x[0])[0]
        clean = packed(x, None)
        for loser in set(range(8)) - set(winners[0].tolist()):
            packed.weight[loser] = float("nan")
            # multiplied with their silence
            dense.down.weight.view(32, 8, 8)[:, loser] = float("nan")
        assert torch.equal(packed(x, None), clean)
        assert dense(x, None).isnan().any()


def test_inhibition_keeps_a_rival_from_winning():
    packed, _ = columns_of(True)
    competition = packed.competition
    x = torch.randn(64, 32, dtype=torch.float64)
    with torch.no_grad():
        before = competition(x)[0]
        busiest = int(torch.bincount(before.flatten(), minlength=8).argmax())
        # everyone inhibits the busiest
        competition.inhibition[:, busiest] = 8.0
        after = competition(x)[0]
    assert competition.strength().diagonal().abs().max() == 0 and (competition.strength() >= 0).all()
    assert (before == busiest).any() and not (after == busiest).any()


@pytest.mark.parametrize("together", [0.5, 4.0])
def test_rounds_bring_the_competition_to_rest(together, monkeypatch):
    """`together` is what all others inhibit a column by.

    The inhibition received hardly changes after four rounds, and does after one.
    """
    received, winners, inhibited = {}, {}, kernel.inhibited
    for rounds in (1, 4, 64):
        torch.manual_seed(0)
        competition = Competition(32, ColumnsConfig(count=32, rounds=rounds))
        with torch.no_grad():
            competition.inhibition.copy_(torch.log(torch.expm1(torch.rand(32, 32) * 2 * together / 31)))
            monkeypatch.setattr(
                kernel,
                "inhibited",
                lambda excited, strength, key=rounds: (
                    received.setdefault(key, []).append(inhibited(excited, strength)[0])
                    or (received[key][-1], excited)
                ),
            )
            winners[rounds] = competition(torch.randn(300, 32))[0].sort().values
    one, four, rest = (received[key][-1] for key in (1, 4, 64))
    assert (rest - received[64][-2]).abs().max() < 1e-5
    assert (four - rest).abs().max() < 0.2 * (one - rest).abs().max()
    assert (winners[4] == winners[64]).all(1).float().mean() > 0.97


def test_balance_evens_the_load():
    torch.manual_seed(0)
    competition = SparseColumns(32, SharedColumnsConfig(count=8, width=8, active=2)).competition
    with torch.no_grad():
        # column 0 would take almost every token
        competition.router.weight[0] += 0.5
    x = torch.randn(512, 32) + 0.5
    spread = []
    for _ in range(400):
        competition.train()(x)
        spread.append(float(competition.load.max() / competition.load.mean()))
        competition.after_step()
    assert spread[0] > 3 and spread[-1] < 1.5


def test_balance_is_frozen_within_a_step():
    model = awake(SMALL["v2"]).train()
    ids = torch.randint(0, 97, (2, 20))
    first, second = model(ids).logits, model(ids).logits
    torch.testing.assert_close(first, second)


def test_two_four_weights_stay_two_of_four():
    model = awake(SMALL["v1"]).float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    up = model.blocks[0].mlp.up
    before = up.mask.clone()
    for seed in range(5):
        ids = torch.randint(0, 97, (2, 17), generator=torch.Generator().manual_seed(seed))
        model(ids[:, :-1], ids[:, 1:]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_step()
    groups = (up.effective_weight() != 0).view(up.weight.shape[0], -1, 4).sum(-1)
    # the form holds, and the choice follows the weights
    assert (groups == 2).all() and (up.mask != before).any()
    assert torch.equal(up.mask, two_four_mask(up.weight)) and 0 < up.flip_rate < 1
    maps = [part for block in model.blocks for part in (block.mlp.up, block.mlp.down)]
    assert model.flip_rate() == pytest.approx(float(sum(part.flip_rate for part in maps)) / 4), (
        "all maps are equally large here"
    )
    model.after_step()
    # nothing moved since
    assert up.flip_rate == model.flip_rate() == 0
    assert awake(SMALL["v2"]).flip_rate() is None
    with torch.no_grad():
        assert torch.equal(up.effective_weight(), up.weight * up.mask)


def test_pruned_weights_follow_a_load():
    model = awake(SMALL["v1"]).eval()
    other = awake(SMALL["v1"], seed=5).eval()
    ids = torch.randint(0, 97, (1, 9))
    with torch.no_grad():
        stale = model(ids).logits
        model.load_state_dict(other.state_dict())
        assert not torch.allclose(model(ids).logits, stale)
        torch.testing.assert_close(model(ids).logits, other(ids).logits)


def test_recording_stops_with_its_block(small):
    ids = torch.randint(0, 97, (1, 8))
    with torch.no_grad():
        with small.recording() as layers:
            small(ids)
        tokens = [layer.tokens for layer in layers]
        small(ids)
    assert tokens == [8] * len(layers) == [layer.tokens for layer in layers]
