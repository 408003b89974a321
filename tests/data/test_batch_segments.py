"""Where documents end: segments of batches, and models that start afresh there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from braingpt.data.batches.batches import Batches, validation_windows
from braingpt.data.shards.reader import ShardSet
from braingpt.evaluation.perplexity import evaluate
from tests.conftest import SMALL, awake
from tests.data.folders import ByteTokenizer, write_folder

EOT = 96


class Tiny(ByteTokenizer):
    """Of the test models' 97 tokens, the last ends a text."""

    eot = EOT

    def token_bytes(self) -> np.ndarray:
        return (np.arange(97) < EOT).astype(np.int32)


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    """Documents of 1 to 20 tokens, the last of which is the end of text, in a split each."""
    random = np.random.default_rng(0)
    streams = {}
    for split, language in (("train", "ko"), ("train", "en"), ("validation", "ko")):
        documents = [np.append(random.integers(0, EOT, size), EOT) for size in random.integers(0, 20, 200)]
        streams[split, language, "text"] = np.concatenate(documents)
    write_folder(tmp_path / "texts", streams)
    return ShardSet.open([tmp_path / "texts"], Tiny())


def test_segments_number_the_documents_of_each_row(shards) -> None:
    batches = Batches(shards, "train", 8, 64, reset_at=EOT)
    plain = Batches(shards, "train", 8, 64)
    for step in range(5):
        batch = batches.batch(step)
        assert torch.equal(batch.ids_BL, plain.batch(step).ids_BL) and plain.batch(step).segments_BL is None
        for ids, targets, segments, unmasked in zip(
            *batch[:2], batch.segments_BL, plain.batch(step).targets_BL, strict=True
        ):
            number = 0
            for place, token in enumerate(ids.tolist()):
                assert segments[place] == number
                assert targets[place] == (-100 if token == EOT else unmasked[place])
                number += token == EOT


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_document_in_a_window_is_as_if_alone(shards, name) -> None:
    """The promise of `data.reset_at_documents`: loss and logits of a document do not depend on what stands
    beside it.
    """
    model = awake(SMALL[name]).eval()
    batch = Batches(shards, "train", 3, 48, reset_at=EOT).batch(2)
    with torch.no_grad():
        packed = model(batch.ids_BL, segments_BL=batch.segments_BL).logits
        losses = model(batch.ids_BL, batch.targets_BL, segments_BL=batch.segments_BL, reduction="none").loss
        mixed = model(batch.ids_BL).logits
    documents = 0
    for row, segments in enumerate(batch.segments_BL):
        for number in segments.unique():
            here = segments == number
            with torch.no_grad():
                alone = model(batch.ids_BL[row, here][None]).logits[0]
                alone_losses = model(
                    batch.ids_BL[row, here][None], batch.targets_BL[row, here][None], reduction="none"
                ).loss[0]
            torch.testing.assert_close(packed[row, here], alone, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(losses[row, here], alone_losses, rtol=1e-9, atol=1e-9)
            documents += 1
    assert documents > 6 and (packed - mixed).abs().max() > 1e-3, "without segments the neighbours do count"


def test_evaluation_starts_afresh_too(shards) -> None:
    model = awake(SMALL["dense"])
    given = dict(context=64, windows=10, rows=4)
    with_reset = evaluate(model, shards, Tiny(), **given, reset_at_documents=True)
    without = evaluate(model, shards, Tiny(), **given)
    ends = sum(int((batch.ids_BL == EOT).sum()) for batch in validation_windows(shards, "ko", 64, 4, 10))
    assert ends > 10 and with_reset.tokens == without.tokens - ends
    assert with_reset.text_nats != without.text_nats
