"""The four promises of a language model, for every architecture, as properties over shapes and contents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.model.lm import LanguageModel
from tests.conftest import SMALL, awake

MODELS = {name: awake(config) for name, config in SMALL.items()}
EXACT = dict(rtol=1e-9, atol=1e-9)
few = settings(max_examples=15, deadline=None)
architectures = st.sampled_from(sorted(MODELS))


def ids_of(seed: int, rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model: LanguageModel, ids: torch.Tensor, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **kwargs).logits


@few
@given(architectures, st.integers(2, 40), st.data(), st.integers(0, 10**6), st.booleans())
def test_causal_in_train_and_eval_mode(name, length, data, seed, train):
    model = MODELS[name].train(train)
    cut = data.draw(st.integers(1, length - 1))
    ids, other = ids_of(seed, 2, length), ids_of(seed + 1, 2, length)
    changed = torch.cat([ids[:, :cut], other[:, cut:]], 1)
    # In train mode gradients are on, so that controllers and straight-through paths run as they do in
    # training.
    with torch.set_grad_enabled(train):
        before, after = model(ids).logits.detach(), model(changed).logits.detach()
    torch.testing.assert_close(before[:, :cut], after[:, :cut], **EXACT)
    model.eval()


def test_causality_test_can_fail(small):
    ids = ids_of(0, 1, 20)
    changed = ids.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 97
    difference = (logits(small.eval(), ids) - logits(small, changed)).abs().amax(-1)[0]
    # the change reaches every later token
    assert difference[:10].max() < 1e-9 < difference[10:].min()


@few
@given(architectures, st.integers(1, 30), st.integers(1, 3), st.integers(0, 10**6), st.booleans())
def test_the_last_tokens_logits_can_be_had_alone(name, length, rows, seed, carried):
    model, ids = MODELS[name].eval(), ids_of(seed, rows, length)
    alone = logits(model, ids, last=True, state=model.new_state(rows) if carried else None)
    assert alone.shape[1] == 1
    torch.testing.assert_close(alone, logits(model, ids)[:, -1:], **EXACT)
    at_BL = ids % 3 == 0
    torch.testing.assert_close(logits(model, ids, at_BL=at_BL), logits(model, ids)[at_BL], **EXACT)


@few
@given(architectures, st.integers(1, 30), st.integers(1, 20), st.integers(1, 3), st.integers(0, 10**6))
def test_step_equals_forward(name, prompt, more, rows, seed):
    model = MODELS[name].eval()
    ids = ids_of(seed, rows, prompt + more)
    state = model.new_state(rows)
    parts = [logits(model, ids[:, :prompt], state=state)]
    with torch.no_grad():
        parts += [model.step(ids[:, t], state)[:, None] for t in range(prompt, prompt + more)]
    torch.testing.assert_close(torch.cat(parts, 1), logits(model, ids), **EXACT)


@few
@given(architectures, st.lists(st.integers(1, 15), min_size=2, max_size=4), st.integers(0, 10**6))
def test_a_prompt_in_pieces_equals_the_whole(name, lengths, seed):
    model = MODELS[name].eval()
    ids = ids_of(seed, 2, sum(lengths))
    state = model.new_state(2)
    parts = [logits(model, piece, state=state) for piece in ids.split(lengths, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), logits(model, ids), **EXACT)


@few
@given(architectures, st.integers(1, 40), st.integers(2, 4), st.integers(0, 10**6))
def test_alone_equals_in_a_batch(name, length, rows, seed):
    model = MODELS[name].eval()
    ids = ids_of(seed, rows, length)
    together = logits(model, ids)
    for row in range(rows):
        torch.testing.assert_close(logits(model, ids[row : row + 1]), together[row : row + 1], **EXACT)


@few
@given(architectures, st.integers(1, 30), st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**6))
def test_padding_is_inert(name, length, left, right, seed):
    model = MODELS[name].eval()
    ids = ids_of(seed, 2, length)
    padded = torch.cat([ids_of(seed + 1, 2, left), ids, ids_of(seed + 2, 2, right)], 1)
    segments = torch.full_like(padded, -1)
    segments[:, left : left + length] = 0
    torch.testing.assert_close(
        logits(model, padded, segments_BL=segments)[:, left : left + length], logits(model, ids), **EXACT
    )


@few
@given(architectures, st.lists(st.integers(1, 15), min_size=2, max_size=4), st.integers(0, 10**6))
def test_packed_neighbours_change_nothing(name, lengths, seed):
    model = MODELS[name].eval()
    ids = ids_of(seed, 2, sum(lengths))
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(2, -1)
    packed = logits(model, ids, segments_BL=segments)
    for document, alone in zip(packed.split(lengths, 1), ids.split(lengths, 1), strict=True):
        torch.testing.assert_close(document, logits(model, alone), **EXACT)


@few
@given(architectures, st.integers(1, 12), st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6))
def test_left_padded_prompts_continue_alike(name, longer, extra, more, seed):
    """Prompts of different lengths in one batch, padded on the left, generate as each alone."""
    model = MODELS[name].eval()
    long, short = ids_of(seed, 1, longer + extra), ids_of(seed + 1, 1, longer)
    tail = ids_of(seed + 2, 2, more)
    padded = torch.cat([long, torch.cat([ids_of(seed + 3, 1, extra), short], 1)])
    segments = torch.zeros_like(padded)
    segments[1, :extra] = -1
    state = model.new_state(2)
    together = [logits(model, padded, state=state, segments_BL=segments)[:, -1]]
    with torch.no_grad():
        together += [model.step(tail[:, t], state) for t in range(more)]
    for row, prompt in enumerate((long, short)):
        alone = logits(model, torch.cat([prompt, tail[row : row + 1]], 1))[0, prompt.shape[1] - 1 :]
        torch.testing.assert_close(torch.stack(together, 1)[row], alone, **EXACT)


def test_padding_inside_a_state_is_refused(small):
    ids = ids_of(0, 1, 4)
    with pytest.raises(ValueError, match="on its left"):
        small(ids, state=small.new_state(1), segments_BL=torch.tensor([[0, 0, -1, -1]]))
    with pytest.raises(ValueError, match="3 rows"):
        small(ids, state=small.new_state(3))


def test_reference_kernels_give_the_same_logits(small, monkeypatch):
    ids, targets = ids_of(0, 2, 33), ids_of(1, 2, 33)
    fast = logits(small.eval(), ids), small(ids, targets).loss
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    torch.testing.assert_close(logits(small, ids), fast[0], **EXACT)
    torch.testing.assert_close(small(ids, targets).loss, fast[1], **EXACT)


def test_padding_does_not_move_the_controllers():
    model = awake(SMALL["v2"]).train()
    ids = ids_of(0, 2, 20)
    padded, segments = torch.cat([ids, ids_of(1, 2, 10)], 1), torch.zeros(2, 30, dtype=torch.long)
    segments[:, 20:] = -1
    seen = []
    for kwargs in ({"ids_BL": ids}, {"ids_BL": padded, "segments_BL": segments}):
        model(**kwargs)
        seen.append([b.clone() for n, b in model.named_buffers() if n.endswith(("load", "observed"))])
        for _, buffer in (nb for nb in model.named_buffers() if nb[0].endswith(("load", "observed"))):
            buffer.zero_()
    assert sum(b.sum() != 0 for b in seen[0]) >= 3
    for plain, with_padding in zip(*seen, strict=True):
        torch.testing.assert_close(plain, with_padding)


@few
@given(architectures, st.lists(st.integers(0, 9), min_size=2, max_size=3), st.integers(1, 9), st.data())
def test_a_later_piece_may_be_padded_on_the_left(name, lefts, prompt, data):
    """Rows that have read the same number of tokens continue with pieces of different lengths."""
    model = MODELS[name].eval()
    seed, rows, length = data.draw(st.integers(0, 10**6)), len(lefts), 10
    before, piece, after = (ids_of(seed + i, rows, n) for i, n in enumerate((prompt, length, 3)))
    segments = torch.where(torch.arange(length) < torch.tensor(lefts)[:, None], -1, 0)
    state = model.new_state(rows)
    logits(model, before, state=state)
    together = [logits(model, piece, state=state, segments_BL=segments), logits(model, after, state=state)]
    for row, left in enumerate(lefts):
        alone = torch.cat([before[row], piece[row, left:], after[row]])[None]
        found = torch.cat([together[0][row, left:], together[1][row]])
        torch.testing.assert_close(found, logits(model, alone)[0, prompt:], **EXACT)
