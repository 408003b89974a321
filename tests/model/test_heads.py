"""Vocabulary columns against the full softmax of their own logits, and what both heads promise a model."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.model.heads.softmax import TiedEmbedding
from braingpt.model.heads.vocabulary_columns import VocabularyColumns, default_width
from braingpt.model.lm import build
from tests.conftest import SMALL
from tests.kernels.compare import normal, same_gradients

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def columns(vocab: int = 97, hidden: int = 12, width: int | None = None, seed: int = 0) -> VocabularyColumns:
    """A head in float64 whose weights all differ and whose classes are drawn."""
    head = VocabularyColumns(vocab, hidden, width).double()
    head.set_classes(torch.randperm(vocab, generator=torch.Generator().manual_seed(seed)))
    with torch.no_grad():
        for i, parameter in enumerate(head.parameters()):
            parameter.copy_(normal(seed + i, *parameter.shape))
    return head.to(DEVICE)


def some_targets(head: VocabularyColumns, tokens: int, ignored: float = 0.0) -> torch.Tensor:
    """Targets, of which about the share `ignored` count for nothing."""
    draw = torch.Generator().manual_seed(tokens)
    target = torch.randint(len(head.slot), (tokens,), generator=draw)
    return target.masked_fill(torch.rand(tokens, generator=draw) < ignored, -100).to(DEVICE)


@settings(max_examples=25)
@given(
    st.integers(1, 90),
    st.integers(1, 120),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.6, 1.0]),
    st.sampled_from(["mean", "none"]),
)
def test_losses_are_those_of_all_logits(tokens, vocab, width, ignored, reduction):
    head, x = columns(vocab, 7, width), normal(5, tokens, 7).to(DEVICE).requires_grad_()
    target = some_targets(head, tokens, ignored)
    losses = F.cross_entropy(head.logits(x), target, reduction="none")
    if reduction == "mean":
        losses = losses.sum() / (target >= 0).sum().clamp(min=1)
    found = head.losses(x, target, reduction)
    assert found.shape == losses.shape
    same_gradients(found[None], losses[None], (x, *head.parameters()))


def test_probabilities_sum_to_one_whole_and_class_by_class():
    head, x = columns(), normal(5, 6, 12).to(DEVICE)
    log_NV, next_tokens = head.logits(x), head.next_tokens(x)
    torch.testing.assert_close(log_NV.exp().sum(1), torch.ones(6, device=DEVICE, dtype=torch.float64))
    found = torch.full_like(log_NV, torch.nan)
    for row in range(6):
        class_C = next_tokens.class_log_probs(row)
        for group in range(head.classes):
            log_S, ids_S = next_tokens.words(row, group)
            found[row, ids_S] = class_C[group] + log_S
    torch.testing.assert_close(found, log_NV)


def test_slots_without_a_word_learn_nothing():
    head, x = columns(97, 12, 16), normal(5, 40, 12).to(DEVICE)
    assert (head.classes, head.padding) == (7, 15)
    head.losses(x, some_targets(head, 40)).backward()
    assert (head.weight.grad[-15:] == 0).all() and (head.weight.grad[:-15].abs().sum(1) > 0).any()


def test_classes_hold_the_tokens_in_the_order_given():
    head, order = columns(50, 6, 8), torch.randperm(50, generator=torch.Generator().manual_seed(3))
    before = head.tokens()
    head.set_classes(order)
    assert torch.equal(head.tokens().cpu(), order) and not torch.equal(head.tokens(), before)
    ids = torch.tensor([[4, 0], [49, 4]], device=DEVICE)
    torch.testing.assert_close(head(ids), head.weight[head.slot[ids]])
    # neighbours of the order share a class
    _, ids_S = head.words(normal(5, 6).to(DEVICE), 2)
    assert ids_S.tolist() == order[16:24].tolist()


@pytest.mark.parametrize(("vocab", "width"), [(16_448, 128), (97, 16), (10, 16), (50_257, 224)])
def test_a_class_has_about_the_square_root_of_the_vocabulary(vocab, width):
    assert default_width(vocab) == width


def test_int8_stays_close():
    head, x = columns(hidden=64).float(), normal(5, 30, 64).float().to(DEVICE) / 8
    target = some_targets(head, 30, 0.2)
    with torch.no_grad():
        float_logits, float_loss, active = head.logits(x), head.losses(x, target), head.parameters_active()
        rows = head(target.clamp(min=0))
        head.to_int8()
        assert (head.logits(x) - float_logits).abs().mean() < 0.05 * float_logits.std()
        assert head.losses(x, target).item() == pytest.approx(float_loss.item(), rel=0.02)
        torch.testing.assert_close(head(target.clamp(min=0)), rows, rtol=0, atol=0.02)
    assert head.parameters_active() == active and head.device.type == DEVICE


def test_autocast_keeps_losses_in_float32():
    head, x = columns(hidden=64).float(), normal(5, 30, 64).float().to(DEVICE).requires_grad_()
    target = some_targets(head, 30, 0.2)
    exact = head.losses(x, target)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = head.losses(x, target)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(exact.item(), rel=2e-2)
    (grad,) = torch.autograd.grad(found, head.weight)
    (want,) = torch.autograd.grad(exact, head.weight)
    assert grad.dtype == torch.float32 and (grad - want).abs().max() <= 0.05 * want.abs().max()


@pytest.mark.parametrize("architecture", ["v2-memory", "v2-classes"])
@pytest.mark.parametrize("wrong", [97, -1, 10**6])
def test_what_is_outside_the_vocabulary_is_named(architecture, wrong):
    model = build(SMALL[architecture])
    ids = torch.randint(97, (2, 9), generator=torch.Generator().manual_seed(0))
    bad = ids.clone()
    bad[1, 4] = wrong
    with pytest.raises(UserError, match=f"^token {wrong} is outside the model's vocabulary of 97$"):
        model(bad)
    with pytest.raises(UserError, match=f"^target {wrong} is outside the model's vocabulary of 97$"):
        model(ids, bad)


@pytest.mark.parametrize("architecture", ["v2-memory", "v2-classes"])
def test_a_model_uses_the_head_its_settings_ask_for(architecture):
    head = build(SMALL[architecture]).embedding
    assert type(head) is (TiedEmbedding if architecture == "v2-memory" else VocabularyColumns)
