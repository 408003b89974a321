import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.errors import UserError
from braingpt.optim.schedule import length_at
from braingpt.recipes import TrainConfig
from braingpt.train.batches import BatchLoader, open_data
from braingpt.train.loop import train
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt, history, same_tensors

CPU = torch.device("cpu")
SHORT_FIRST = "train.lengths=[{until: 0.3, context: 8}, {until: 0.6, context: 16}]"


def feed(data, *overrides):
    recipe = tiny("dense", *overrides)
    tokenizer, shards = open_data([data], recipe)
    return BatchLoader(recipe, shards, tokenizer, CPU)


def test_short_sequences_are_the_same_tokens_in_pieces(data):
    whole, short = feed(data), feed(data, SHORT_FIRST)
    for step, length in ((0, 8), (5, 8), (6, 16), (11, 16), (12, 32), (19, 32)):
        (one,), (two,) = whole.micro_batches(step, 4), short.micro_batches(step, 4)
        assert two.ids_BL.shape == (4 * 32 // length, length)
        assert torch.equal(one.ids_BL.flatten(), two.ids_BL.flatten()) and torch.equal(
            one.targets_BL.flatten(), two.targets_BL.flatten()
        )


def test_it_knows_where_the_data_change(data):
    short = feed(data, SHORT_FIRST)
    assert [step for step in range(20) if short.changes_at(step)] == [6, 12]
    mixed = feed(data, "data.mixture=[{until: 0.5, mixture: {ko: 1}}, {mixture: {en: 1}}]")
    assert [step for step in range(20) if mixed.changes_at(step)] == [10]
    assert not any(feed(data).changes_at(step) for step in range(20))


@given(step=st.integers(0, 30), micro=st.sampled_from([1, 2, 4]), reset=st.booleans())
@settings(max_examples=15, deadline=None)
def test_pieces_are_the_rows_of_the_step_and_their_shares_sum_to_one(data, step, micro, reset):
    one = feed(data, f"data.reset_at_documents={reset}".lower())
    one.offset = 3
    batch = one.batches.batch(step + 3)
    pieces = one.micro_batches(step, micro)
    assert torch.equal(torch.cat([piece.ids_BL for piece in pieces]), batch.ids_BL) and sum(
        p.target_fraction for p in pieces
    ) == pytest.approx(1)
    assert all((piece.segments_BL is not None) == reset for piece in pieces)
    named = sorted(
        (language, window) for language, windows in one.windows(step).items() for window in windows
    )
    languages, windows = one.batches.draws((step + 3) * 4, 4)
    assert named == sorted(
        (one.batches.languages[language], int(window))
        for language, window in zip(languages, windows, strict=True)
    )


def test_lengths_follow_the_step_and_are_checked():
    config = TrainConfig(
        steps=10, context=64, lengths=[{"until": 0.25, "context": 16}, {"until": 0.5, "context": 32}]
    )
    assert [length_at(step, config) for step in range(10)] == [16, 16, 32, 32, 32, 64, 64, 64, 64, 64]
    with pytest.raises(UserError, match=r"train\.context \(32\) must be a multiple of 12"):
        tiny("dense", "train.lengths=[{until: 0.5, context: 12}]")
    with pytest.raises(UserError, match=r"'until' rises from phase to phase, not \[0\.5, 0\.2\]"):
        tiny("dense", "train.lengths=[{until: 0.5, context: 8}, {until: 0.2, context: 16}]")


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_short_sequences_and_averaged_weights_resume_bit_for_bit(tmp_path, data, architecture):
    recipe = tiny(
        architecture,
        "train.steps=10",
        "train.save_every=5",
        "train.eval_every=5",
        "train.average=0.9",
        SHORT_FIRST,
    )
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    train(recipe, tmp_path / "halves", [data], device="cpu", reporter=StopAt(4))
    done = train(recipe, tmp_path / "halves", resume="auto", device="cpu")
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_tensors(
            tmp_path / "whole/checkpoints/step-0000010" / name,
            tmp_path / "halves/checkpoints/step-0000010" / name,
        )
    assert (
        history(tmp_path / "whole") == history(tmp_path / "halves")
        and done.validation["loss"] == whole.validation["loss"]
    )
