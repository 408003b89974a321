import pytest
import torch

from braingpt.inspection.head_use import head_use
from tests.conftest import SMALL, awake

WINDOWS = [torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(0))]


def test_a_full_head_has_no_classes():
    assert head_use(awake(SMALL["v2"]), WINDOWS) is None


@pytest.mark.parametrize("scale", [0.0, 400.0])
def test_rows_read_depend_on_how_sure_the_classes_are(scale):
    model = awake(SMALL["v2-classes"]).eval()
    with torch.no_grad():
        model.embedding.class_weight *= scale
        model.embedding.class_bias.zero_()
    use = head_use(model, WINDOWS)
    assert (use.classes, use.width) == (7, 16)
    one = (7 + 16) / 97
    if scale:
        # one class holds nearly everything; the last one has a single word
        assert (7 + 1) / 97 <= use.greedy <= one + 0.02
        assert (7 + 1) / 97 <= use.sampled <= use.narrowed < 2 * one
    else:
        # classes are equally likely: the best word of one does not rule out the next
        assert use.greedy > 4 * one
    # nothing counts any more
    assert model.embedding.rows_read is None
