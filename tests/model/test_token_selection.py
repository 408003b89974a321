"""Selected tokens: thresholds reach their rate, packing loses nothing, and the choice learns."""

import pytest
import torch

from braingpt.model.mixers.selective_attention import SelectiveAttention
from braingpt.model.routing.token_selection import Selection, Selector
from tests.conftest import SMALL, awake


def test_tokens_not_chosen_are_never_attended():
    model = awake(SMALL["v2"]).eval()
    attention = model.blocks[1].mixer
    x = torch.randn(1, 30, 32, dtype=torch.float64)
    from braingpt.model.sequence_layout import Layout

    layout = Layout.of(torch.zeros(1, 30, dtype=torch.long), None, None)
    with torch.no_grad():
        _, chosen = attention.selector(x, None)
        assert 0 < chosen.sum() < 30
        clean = attention(x, layout)
        poisoned = torch.where(chosen[..., None], x, x * -5)
        poisoned = torch.where((attention.selector(poisoned, None)[1] == chosen)[..., None], poisoned, x)
        torch.testing.assert_close(attention(poisoned, layout), clean)
    assert (clean[~chosen] == 0).all() and (clean[chosen] != 0).any()


def test_the_choice_of_tokens_that_attend_learns():
    """The score takes part in the loss through the tokens that were chosen; without it the selector would
    stay as it was drawn.
    """
    model = awake(SMALL["v2"]).train()
    ids = torch.randint(0, 97, (4, 33), generator=torch.Generator().manual_seed(4))
    model(ids[:, :-1], ids[:, 1:]).loss.backward()
    selectors = [layer.selector for layer in model.modules() if isinstance(layer, SelectiveAttention)]
    assert selectors and all(
        selector.weight.grad is not None and selector.weight.grad.abs().sum() > 0 for selector in selectors
    )


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_threshold_finds_the_rate(rate):
    torch.manual_seed(0)
    selector = Selector(32, rate).train()
    # not the unit variance the start assumes
    x = torch.randn(4, 500, 32) * 2 + 0.3
    for _ in range(60):
        selector(x, None)
        selector.after_step()
    assert selector(x, None)[1].float().mean() == pytest.approx(rate, abs=0.01)


def test_threshold_keeps_up_with_scores_that_grow():
    """As at the start of training without a warm-up; a tenth of the way each step would choose nearly all."""
    torch.manual_seed(0)
    selector = Selector(32, 0.1).train()
    way = selector.weight.detach() / selector.weight.detach().square().sum()
    for step in range(40):
        chosen = selector(torch.randn(4, 500, 32) + 0.3 * step * way, None)[1]
        selector.after_step()
    assert 0.05 < chosen.float().mean() < 0.4


def test_pack_and_unpack_are_inverse_on_the_chosen():
    x = torch.randn(3, 40, 5)
    chosen = torch.rand(3, 40) < 0.4
    chosen[1] = False
    packed = Selection.of(chosen)
    assert packed.count.tolist() == chosen.sum(1).tolist()
    torch.testing.assert_close(packed.unpack(packed.pack(x), 40), x * chosen[..., None])
