"""Adaptive depth: exits that hold their rate, a dial, halted tokens that cost nothing deeper and leave no
trace there.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from braingpt.errors import UserError
from braingpt.model.config import V2Config
from braingpt.model.config_parts import DepthConfig
from braingpt.model.lm import build
from braingpt.model.routing.adaptive_depth import arrival_shares, continue_rate
from tests.conftest import SMALL, awake


@given(st.integers(2, 48), st.data())
def test_the_rate_gives_the_share(layers, data):
    exits = sorted(data.draw(st.sets(st.integers(1, layers - 1), min_size=1)))
    share = data.draw(st.floats(exits[0] / layers + 0.01, 1))
    rate = continue_rate(share, exits, layers)
    assert 0 < rate <= 1
    assert sum(arrival_shares(rate, exits, layers)) / layers == pytest.approx(share, abs=1e-6)


def test_exits_begin_at_a_third():
    shape = dict(hidden=32, heads=4, mamba={"head": 8}, depth=DepthConfig(share=0.7))
    assert V2Config(layers=6, **shape).depth_exits == (2, 3, 4, 5)
    assert V2Config(layers=7, **shape).depth_exits == (3, 4, 5, 6)
    assert V2Config(layers=6, **{**shape, "depth": DepthConfig()}).depth_exits == ()


@pytest.mark.parametrize(
    "depth",
    [
        {"share": 0.3},
        {"share": 0.5, "exits": [4, 2]},
        {"share": 0.9, "exits": [6]},
        {"share": 0.9, "exits": [0]},
    ],
)
def test_a_depth_that_cannot_be_is_refused(depth):
    with pytest.raises(ValidationError, match=r"model\.depth"):
        V2Config(layers=6, hidden=32, heads=4, mamba={"head": 8}, depth=depth)


def train_the_controllers(model, steps: int = 60) -> None:
    """Forward passes on random tokens; only the thresholds move."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        model(torch.randint(0, 97, (8, 64), generator=generator))
        model.after_step()
    model.eval()


def layers_used(model, ids) -> float:
    with torch.no_grad(), model.recording() as layers:
        model(ids)
    return sum(layer.arrived for layer in layers) / sum(layer.tokens for layer in layers)


@pytest.mark.slow
def test_controllers_reach_the_share_and_the_dial_moves_it():
    model = awake(SMALL["v2-depth"])
    train_the_controllers(model)
    ids = torch.randint(0, 97, (16, 64), generator=torch.Generator().manual_seed(1))
    assert layers_used(model, ids) == pytest.approx(0.7, abs=0.03)
    for effort in (0.5, 0.6, 0.8, 0.9):
        model.set_effort(effort)
        assert layers_used(model, ids) == pytest.approx(effort, abs=0.05)
    model.set_effort(1)
    assert layers_used(model, ids) == 1
    model.set_effort(None)
    assert layers_used(model, ids) == pytest.approx(0.7, abs=0.03)


def test_no_effort_without_exits_and_none_out_of_reach():
    with pytest.raises(UserError, match=r"model\.depth\.share below 1"):
        build(SMALL["v2"]).set_effort(0.5)
    build(SMALL["dense"]).set_effort(None)
    for effort in (0.1, 1.5, math.nan):
        with pytest.raises(UserError, match=r"between 0\.40"):
            build(SMALL["v2-depth"]).set_effort(effort)


def test_a_halted_token_costs_no_deeper_work_and_changes_no_deeper_state():
    model = awake(SMALL["v2-depth"]).eval()
    ids = torch.randint(0, 97, (1, 30), generator=torch.Generator().manual_seed(2))
    state = model.new_state(1)
    with torch.no_grad():
        model(ids, state=state)
        # from now on every token halts at the first exit
        for exit_ in model.exits:
            exit_.selector.levels.fill_(math.inf)
        before = [layer.hidden.clone() for layer in state.layers if hasattr(layer, "hidden")]
        used = int(state.used_B)
        with model.recording() as layers:
            model.step(ids[:, 0], state)
    first = model.config.depth_exits[0]
    assert [layer.arrived for layer in layers] == [1] * first + [0] * (5 - first)
    # the first exit's own score is counted where it stands
    assert all(layer.flops == 0 for layer in layers[first + 1 :])
    assert int(state.used_B) - used == first
    after = [layer.hidden for layer in state.layers if hasattr(layer, "hidden")]
    assert not torch.equal(before[0], after[0]) and torch.equal(before[-1], after[-1])


def test_rows_of_a_batch_halt_by_themselves():
    """Steps in a batch whose rows halt at different exits equal the whole sequences read alone."""
    model = awake(SMALL["v2-depth"]).eval()
    ids = torch.randint(0, 97, (4, 40), generator=torch.Generator().manual_seed(3))
    state = model.new_state(4)
    with torch.no_grad():
        steps = torch.stack([model.step(ids[:, t], state) for t in range(40)], 1)
        for row in range(4):
            torch.testing.assert_close(steps[row], model(ids[row : row + 1]).logits[0], rtol=1e-9, atol=1e-9)
    assert len(set(state.used_B.tolist())) > 1


def test_the_gate_learns():
    """Every exit's score takes part in the loss, through the tokens that go on."""
    model = awake(SMALL["v2-depth"]).train()
    ids = torch.randint(0, 97, (4, 33), generator=torch.Generator().manual_seed(4))
    model(ids[:, :-1], ids[:, 1:]).loss.backward()
    assert all(exit_.selector.weight.grad.abs().sum() > 0 for exit_ in model.exits)
