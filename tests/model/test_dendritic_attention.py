"""Dendritic attention: closed dendrites cost nothing and pass nothing, queries keep their share of keys."""

import torch

from tests.conftest import SMALL, awake


def test_closed_dendrites_pass_nothing_and_can_reopen():
    model = awake(SMALL["v1"]).train()
    attention = model.blocks[0].mixer
    with torch.no_grad():
        # all closed
        attention.gate.bias.fill_(-20)
    ids = torch.randint(0, 97, (1, 12))
    with model.recording() as layers:
        loss = model(ids, ids).loss
    assert layers[0].dendrites_open == 0 and layers[0].dendrites == 12 * 4
    assert attention.out.weight.grad is None
    loss.backward()
    # nothing passed
    assert attention.out.weight.grad.abs().max() == 0
    with torch.no_grad():
        # still below the threshold of 0.1
        attention.gate.bias.fill_(-3)
    model(ids, ids).loss.backward()
    # and yet the gates feel the gradient
    assert attention.gate.bias.grad.abs().max() > 0


def test_closed_dendrites_are_not_computed_in_generation():
    """Poison in what only closed dendrites multiply with leaves a step as it is; with gradients they are
    computed, and it spreads.
    """
    model = awake(SMALL["v1"]).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.gate.bias.copy_(torch.tensor([0.0, -20.0, 0.0, -20.0]))
        ids, state = torch.randint(0, 97, (1, 20)), model.new_state(1)
        model(ids, state=state)
        clean = model.step(ids[:, 0], state)
        state.layers[0].length -= 1
        state.layers[1].length -= 1
        state.seen_B = state.seen_B - 1
        for block in model.blocks:
            for closed in (slice(8, 16), slice(24, 32)):
                # its queries
                block.mixer.qkv.weight[closed] = float("nan")
                block.mixer.out.weight[:, closed] = float("nan")
        with model.recording() as layers:
            assert torch.equal(model.step(ids[:, 0], state), clean)
    assert layers[0].dendrites_open == 2 and layers[0].keys_kept == 2 * 4
    # two query and two output maps, two heads' scores, values not read
    left_out = 2 * 2 * 32 * 16 + 2 * 8 * 2 * 21 + 2 * 8 * (4 * 21 - 2 * 4)
    assert layers[0].flops_dense - layers[0].flops == left_out
    assert model(ids).logits.isnan().all()


def test_a_token_that_closes_all_dendrites_still_leaves_its_keys():
    model = awake(SMALL["v1"]).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.gate.bias.fill_(-20)
        ids, state = torch.randint(0, 97, (1, 6)), model.new_state(1)
        steps = torch.stack([model.step(ids[:, t], state) for t in range(6)], 1)
        torch.testing.assert_close(steps, model(ids).logits)
    assert all(layer.length == 6 for layer in state.layers)


def test_each_query_keeps_its_share_of_keys():
    model = awake(SMALL["v1"]).eval()
    with torch.no_grad(), model.recording() as layers:
        model(torch.randint(0, 97, (1, 200)))
    # heads
    expected = sum(min(t, max(4, -(-t * 5 // 100))) for t in range(1, 201)) * 4
    assert layers[0].keys_kept == expected
    assert layers[0].keys_possible == 4 * 200 * 201 // 2
