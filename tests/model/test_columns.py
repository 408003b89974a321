"""Columns by the thousand: the same rules as for eight, every one in use, dead ones revived, tokens that are
not there left out.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels.competition.reference import inhibited
from braingpt.kernels.two_four import two_four_mask
from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.columns.competition import INTERNEURONS, PAIRWISE, REVIVE_AFTER, Competition
from braingpt.model.config import ColumnsConfig, SharedColumnsConfig, SilencedColumnsConfig


def layer(
    count: int = 200, width: int = 4, active: int = 3, hidden: int = 16, shared: int = 1, seed: int = 0
) -> SparseColumns:
    torch.manual_seed(seed)
    part = SparseColumns(
        hidden, SharedColumnsConfig(count=count, width=width, active=active, shared=shared)
    ).double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return part


@pytest.mark.parametrize("count", [PAIRWISE, PAIRWISE + 1])
def test_inhibition_is_never_negative_and_never_of_oneself(count):
    torch.manual_seed(0)
    competition = Competition(8, ColumnsConfig(count=count, active=2)).double()
    with torch.no_grad():
        competition.inhibition += torch.randn_like(competition.inhibition)
    strength = competition.strength()
    assert strength.shape == (count, count) and (strength >= -1e-12).all()
    assert strength.diagonal().abs().max() < 1e-12
    excited = torch.rand(5, count, dtype=torch.float64)
    torch.testing.assert_close(inhibited(excited, competition.inhibition_weights())[0], excited @ strength)
    fresh = Competition(8, ColumnsConfig(count=count, active=2)).strength().sum(0)
    # about a tenth of a full column in all
    assert fresh.min() > 0.05 and fresh.max() < 0.2


def test_interneurons_need_few_weights():
    competition = Competition(8, ColumnsConfig(count=2000, active=2))
    assert competition.inhibition.numel() == 2 * 2000 * INTERNEURONS
    assert competition.parameters_active() == 2000 * (8 + 2 * INTERNEURONS)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([6, 150]), st.integers(1, 3), st.integers(1, 30))
def test_gradients_are_those_of_the_winners(count, active, tokens):
    """The router learns through its winners; the inhibition from all.

    Against plain autograd over the same formula.
    """
    part = layer(count, active=active).competition
    x = torch.randn(tokens, 16, dtype=torch.float64, requires_grad=True)
    winner, share, _ = part(x)
    logit = F.linear(x, part.router.weight)
    drive = logit - inhibited(torch.sigmoid(logit).detach(), part.inhibition_weights())[0]
    score = torch.sigmoid(drive.gather(-1, winner))
    expected = score / score.sum(-1, keepdim=True) if active > 1 else score
    torch.testing.assert_close(share, expected)
    assert (winner.sort(-1).values == (drive + part.bias).topk(active).indices.sort(-1).values).all()
    inputs = (x, part.router.weight, part.inhibition)
    upstream = torch.randn_like(share)
    for a, b in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (share, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_tokens_that_are_not_there_cost_nothing(share):
    from braingpt.model.work_counters import WorkCounters

    part = layer().train()
    x = torch.randn(3, 20, 16, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(3, 20) < share
    part.record = record = WorkCounters(0, "none")
    y = part(x, valid)
    part.record = None
    assert (y[~valid] == 0).all()
    torch.testing.assert_close(y, part(x, None) * valid[..., None])
    if valid.any():
        assert record.column_load.sum() == valid.sum() * 3
        per_token = 2 * part.competition.parameters_active() + 4 * 3 * 4 * 16
        assert record.flops == valid.sum() * per_token
        grad = torch.autograd.grad(part(x, valid).square().sum(), x)[0]
        assert (grad[~valid] == 0).all() and (grad[valid] != 0).any()


def test_balance_evens_the_load_of_hundreds():
    torch.manual_seed(0)
    competition = Competition(16, ColumnsConfig(count=300, active=4)).train()
    with torch.no_grad():
        # these would take almost every token
        competition.router.weight[:20] += 0.4
    spread, x = [], torch.randn(1024, 16) + 0.4
    for _ in range(200):
        competition(x)
        spread.append(float(competition.load.max() / competition.load.mean()))
        competition.after_step()
    assert spread[0] > 8 and spread[-1] < spread[0] / 3


def starve(part: SparseColumns, dead: list[int]) -> None:
    """Make columns lose for longer than is allowed."""
    part.competition.idle[dead] = REVIVE_AFTER
    part.competition.bias.copy_(torch.linspace(-1, 1, len(part.competition.bias)))


def test_dead_columns_are_revived_as_variations_of_the_busiest():
    part = layer()
    starve(part, [70, 150])
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    part.after_step()
    after = part.state_dict()
    others = torch.ones(200, dtype=torch.bool)
    others[[70, 150]] = False
    for name in ("weight", "competition.router.weight", "competition.bias", "competition.idle"):
        assert torch.equal(after[name][others], before[name][others]), name
        assert not torch.equal(after[name][~others], before[name][~others]), name
    assert torch.equal(after["competition.inhibition"], before["competition.inhibition"])
    assert (
        part.revived == 2
        and (part.competition.idle[~others] == 0).all()
        and (part.weight[~others, 1] == 0).all()
    )
    likeness = F.cosine_similarity(
        part.competition.router.weight[[70, 150]], part.competition.router.weight[[0, 1]]
    )
    assert (likeness > 0.6).all() and (likeness < 0.999).all()


def test_v1_revives_dead_columns_too_and_its_masks_follow():
    torch.manual_seed(0)
    part = SilencedColumns(16, SilencedColumnsConfig(count=32, width=8, active=3, rounds=4), two_four=True)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    starve(part, [7, 20])
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    # in the model's order
    for module in (part, part.up, part.down):
        module.after_step()
    up, down, old = (
        part.up.weight.view(32, 8, 16),
        part.down.weight.view(16, 32, 8),
        before["up.weight"].view(32, 8, 16),
    )
    others = torch.ones(32, dtype=torch.bool)
    others[[7, 20]] = False
    assert torch.equal(up[others], old[others]) and torch.equal(
        down[:, others], before["down.weight"].view(16, 32, 8)[:, others]
    )
    likeness = F.cosine_similarity(up[[7, 20]].flatten(1), old[[0, 1]].flatten(1))
    assert (likeness > 0.6).all() and (likeness < 0.999).all() and (down[:, ~others] == 0).all()
    assert part.revived == 2 and (part.competition.idle[~others] == 0).all()
    assert torch.equal(part.up.mask, two_four_mask(part.up.weight)) and not torch.equal(
        part.up.mask, before["up.mask"]
    )


def test_no_column_of_v1_stays_dead(monkeypatch):
    """Five of 32 columns are hopeless at first; at the end each wins some of 2,048 tokens, and the layer has
    learned.
    """
    monkeypatch.setattr("braingpt.model.columns.competition.REVIVE_AFTER", 20)
    torch.manual_seed(0)
    part = SilencedColumns(
        32, SilencedColumnsConfig(count=32, width=16, active=3, rounds=4), two_four=True
    ).train()
    with torch.no_grad():
        part.competition.router.weight[:5, 0] = -20
    # a channel that is always high: the balance alone would take thousands of steps
    one = F.one_hot(torch.tensor(0), 32)
    optimizer = torch.optim.AdamW(part.parameters(), lr=5e-3, fused=True)
    target, losses = torch.randn(32, 32) / 32**0.5, []
    for _ in range(80):
        x = torch.randn(1, 256, 32) * (1 - one) + one
        loss = F.mse_loss(part(x, None), x @ target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for module in (part, part.competition, part.up, part.down):
            module.after_step()
        losses.append(loss.item())
    with torch.no_grad():
        winner = part.competition(torch.randn(2048, 32) * (1 - one) + one)[0]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert part.revived >= 5 and (torch.bincount(winner.flatten(), minlength=32) > 0).all()


def test_tokens_that_do_not_meet_a_revived_column_notice_nothing():
    part = layer().eval()
    x = torch.randn(1, 400, 16, dtype=torch.float64)
    with torch.no_grad():
        # else all hear of a new competitor
        part.competition.inhibition.fill_(-1e9)
        starve(part, [70])
        clean, before = part(x, None), part.competition(x[0])[0]
        part.after_step()
        changed, after = part(x, None), part.competition(x[0])[0]
    untouched = ((before != 70) & (after != 70)).all(-1)
    assert 0 < untouched.sum() < 400
    torch.testing.assert_close(clean[0, untouched], changed[0, untouched], rtol=1e-12, atol=1e-12)


def test_revival_depends_on_nothing_but_what_is_saved():
    parts = [layer(), layer(seed=5)]
    starve(parts[0], [9, 3])
    parts[1].load_state_dict(parts[0].state_dict())
    for seed, part in enumerate(parts):
        torch.manual_seed(seed)
        part.after_step()
        starve(part, [8])
        part.after_step()
    assert all(
        torch.equal(a, b)
        for a, b in zip(parts[0].state_dict().values(), parts[1].state_dict().values(), strict=True)
    )


@pytest.mark.slow
def test_a_thousand_columns_learn_and_none_stays_dead(monkeypatch):
    """A layer of 1,024 columns of 16, thirty of them hopeless at first, learns a map; at the end each column
    wins some of 8,192 tokens.
    """
    monkeypatch.setattr("braingpt.model.columns.competition.REVIVE_AFTER", 25)
    torch.manual_seed(0)
    part = SparseColumns(32, SharedColumnsConfig(count=1024, width=16, active=4, shared=1)).train()
    with torch.no_grad():
        part.competition.router.weight[:30] -= 3
    optimizer = torch.optim.AdamW(part.parameters(), lr=5e-3, fused=True)
    target, losses = torch.randn(32, 32) / 32**0.5, []
    for _ in range(80):
        x = torch.randn(1, 512, 32) + 0.5
        loss = F.mse_loss(part(x, None), x @ target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        part.after_step()
        part.competition.after_step()
        losses.append(loss.item())
    with torch.no_grad():
        winner = part.competition(torch.randn(8192, 32) + 0.5)[0]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert part.revived > 0 and (torch.bincount(winner.flatten(), minlength=1024) > 0).all()
