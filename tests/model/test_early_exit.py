"""Early exit: tokens that left agree in whole sequences and steps, dropped layers and the middle loss learn,
drafts change nothing.
"""

import pytest
import torch

from braingpt.errors import UserError
from braingpt.evaluation.exit_threshold import THRESHOLDS, ThresholdScore, cheapest_within, sweep_thresholds
from braingpt.inference.engine import generate, stream
from braingpt.inference.speculative import SpeculativeDecoder
from braingpt.model.config import V1Config
from braingpt.model.layers import rms_norm
from braingpt.model.lm import build
from braingpt.model.sequence_layout import Layout
from tests.conftest import SMALL, awake

EXACT = dict(rtol=1e-9, atol=1e-9)
EXITS = V1Config(
    layers=5,
    hidden=32,
    heads=4,
    vocab=97,
    attention={"gate_threshold": 0.5},
    columns={"count": 8, "width": 8, "active": 2},
    two_four=False,
    early_exit={"threshold": 0.06},
)


@pytest.fixture(scope="module")
def model():
    """In float64; about half of the layers are left out at this threshold."""
    return awake(EXITS).eval()


def ids_of(seed: int, rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model, ids, **kwargs):
    with torch.no_grad():
        return model(ids, **kwargs).logits


def test_steps_leave_where_the_whole_sequence_leaves(model):
    ids, state = ids_of(0, 1, 40), model.new_state(1)
    model.early.share()
    whole = logits(model, ids)
    share = model.early.share()
    assert 0.3 < share < 0.95
    parts, counted = [logits(model, ids[:, :7], state=state)], []
    hooks = [block.register_forward_hook(lambda *_: counted.append(1)) for block in model.blocks]
    with torch.no_grad():
        parts += [model.step(ids[:, t], state)[:, None] for t in range(7, 40)]
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
    assert state.depth() == pytest.approx(share) and all(layer.length == 40 for layer in state.layers)
    assert len(counted) < 33 * 5, "layers behind an exit are not computed"


def test_rows_of_a_batch_leave_one_by_one(model):
    ids, state = ids_of(9, 4, 30), model.new_state(4)
    left = torch.zeros(4, 10, dtype=torch.long)
    left[1, :4] = -1
    parts, rows = [logits(model, ids[:, :10], state=state, segments_BL=left)], set()
    hooks = [
        block.register_forward_hook(lambda _module, args, _out: rows.add(len(args[0])))
        for block in model.blocks
    ]
    with torch.no_grad():
        parts += [model.step(ids[:, t], state)[:, None] for t in range(10, 30)]
    for hook in hooks:
        hook.remove()
    for row in range(4):
        begin = 4 if row == 1 else 0
        alone = logits(model, ids[row : row + 1, begin:])
        torch.testing.assert_close(torch.cat(parts, 1)[row : row + 1, begin:], alone, **EXACT)
    assert {1, 2, 3} <= rows and all(layer.length == 30 for layer in state.layers)


def test_the_four_promises_hold_with_exits(model):
    ids, other = ids_of(1, 2, 24), ids_of(2, 2, 24)
    whole = logits(model, ids)
    changed = torch.cat([ids[:, :15], other[:, 15:]], 1)
    torch.testing.assert_close(logits(model, changed)[:, :15], whole[:, :15], **EXACT)
    torch.testing.assert_close(logits(model, ids[1:]), whole[1:], **EXACT)
    padded, segments = torch.cat([other[:, :5], ids, other[:, :3]], 1), torch.full((2, 32), -1)
    segments[:, 5:29] = 0
    torch.testing.assert_close(logits(model, padded, segments_BL=segments)[:, 5:29], whole, **EXACT)
    packed = logits(
        model, torch.cat([other, ids], 1), segments_BL=torch.arange(2).repeat_interleave(24).expand(2, -1)
    )
    torch.testing.assert_close(packed[:, 24:], whole, **EXACT)
    state, left = model.new_state(2), torch.zeros(2, 24, dtype=torch.long)
    left[1, :6] = -1
    first = logits(model, ids, state=state, segments_BL=left)[1, -1]
    torch.testing.assert_close(first, logits(model, ids[1:, 6:])[0, -1], **EXACT)
    with torch.no_grad():
        then = model.step(other[:, 0], state)[1]
    torch.testing.assert_close(
        then, logits(model, torch.cat([ids[1:, 6:], other[1:, :1]], 1))[0, -1], **EXACT
    )


def test_without_a_threshold_nothing_leaves(model):
    ids = ids_of(3, 1, 12)
    model.set_exit_threshold(None)
    plain = logits(model, ids)
    model.set_exit_threshold(0.06)
    assert not torch.allclose(plain, logits(model, ids))
    # no softmax reaches it here
    model.set_exit_threshold(1.0)
    torch.testing.assert_close(logits(model, ids), plain, **EXACT)
    model.set_exit_threshold(0.06)
    with pytest.raises(UserError, match="probability above 0"):
        model.set_exit_threshold(1.5)
    with pytest.raises(UserError, match="is for v1"):
        build(SMALL["dense"]).set_exit_threshold(0.5)


def test_the_middle_loss_teaches_and_does_not_count():
    ids, targets = ids_of(4, 2, 16), ids_of(5, 2, 16)
    with_loss = EXITS.early_exit.model_copy(update={"loss": 0.5})
    plain, taught = (
        awake(EXITS.model_copy(update={"early_exit": exits})).train()
        for exits in (EXITS.early_exit, with_loss)
    )
    after = int(torch.randint(1, 5, (), generator=taught.early.draws.manual_seed(0)))
    taught.early.draws.manual_seed(0)
    told = taught(ids, targets).loss
    told.backward()
    expected = plain(ids, targets).loss
    torch.testing.assert_close(told, expected)
    x, layout = plain.embedding(ids), Layout.of(ids, None, None)
    x = rms_norm(x)
    for block in plain.blocks[:after]:
        x = block(x, layout)
    middle = torch.nn.functional.cross_entropy(
        plain.embedding.logits(rms_norm(x)).flatten(0, 1), targets.flatten()
    )
    (expected + 0.5 * middle).backward()
    for (name, one), other in zip(taught.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_deeper_layers_are_dropped_more_often_and_for_whole_rows():
    model = awake(
        EXITS.model_copy(update={"early_exit": EXITS.early_exit.model_copy(update={"dropout": 0.8})})
    ).train()
    rates = model.early.dropped
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.8) and rates == sorted(rates)
    ids, layout = ids_of(6, 3, 10), Layout.of(ids_of(6, 3, 10), None, None)
    model.early.draws.manual_seed(1)
    with torch.enable_grad():
        got = model.early.forward_training(model.blocks, model.embedding(ids), layout)
    draws = torch.Generator().manual_seed(1)
    kept = torch.stack(
        [torch.ones(3, dtype=torch.bool), *(torch.rand(3, generator=draws) >= rate for rate in rates[1:])]
    )
    assert 0 < kept.sum() < kept.numel()
    for row in range(3):
        x = model.embedding(ids[row : row + 1])
        for layer, block in enumerate(model.blocks):
            x = block(x, layout) if kept[layer, row] else x
        torch.testing.assert_close(got[row : row + 1], x)


@pytest.mark.parametrize("name", ["dense", "v1", "exits"])
@pytest.mark.parametrize(("draft_layers", "ahead", "least"), [(1, 1, 0.0), (1, 4, 0.0), (1, 3, 0.055)])
def test_drafts_change_nothing(name, draft_layers, ahead, least):
    model = awake(EXITS if name == "exits" else SMALL[name]).eval()
    model.set_exit_threshold(None) if name != "dense" else None
    for temperature in (0.0, 0.3):
        asked = dict(max_new_tokens=25, temperature=temperature, seed=3)
        decoder = SpeculativeDecoder(model, draft_layers, ahead, least)
        assert list(stream(model, [5, 6, 7], **asked, decoder=decoder)) == generate(model, [5, 6, 7], **asked)
        assert int(decoder.state.seen_B) == 27 and decoder.followed + decoder.passes == 24


def test_a_draft_that_is_right_saves_passes():
    """Fresh blocks are the identity, so the first layers know what all say."""
    model = build(SMALL["dense"]).double().eval()
    decoder = SpeculativeDecoder(model, 1, ahead=3)
    list(stream(model, [5], 17, temperature=0.0, decoder=decoder))
    assert (
        decoder.passes == 4
        and decoder.followed == decoder.drafted == 12
        and decoder.depth() == pytest.approx(1.0)
    )


def test_what_cannot_draft_is_refused():
    with pytest.raises(UserError, match="cannot"):
        SpeculativeDecoder(build(SMALL["v2"]), 1)
    with pytest.raises(UserError, match="between 1 and 1, not 2"):
        SpeculativeDecoder(build(SMALL["dense"]), 2)


def test_calibration_scores_each_threshold_and_keeps_to_the_budget(model):
    ids, targets = ids_of(7, 2, 20), ids_of(8, 2, 20)

    def score() -> float:
        with torch.no_grad():
            return float(model(ids, targets).loss)

    found = list(sweep_thresholds(model, score))
    assert [setting.threshold for setting in found] == [None, *THRESHOLDS] and model.early.threshold == 0.06
    assert found[0].layers_used == 1 == found[1].layers_used and found[0].perplexity_cost == 0
    rows = [
        ThresholdScore(None, 1.0, 3.0, 0.0),
        ThresholdScore(0.9, 0.8, 3.0, 0.005),
        ThresholdScore(0.5, 0.4, 3.1, 0.02),
    ]
    assert (
        cheapest_within(rows, 0.01).threshold == 0.9
        and cheapest_within(rows, 0.05).threshold == 0.5
        and cheapest_within(rows, 0).threshold is None
    )
