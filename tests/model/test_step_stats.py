import pytest
import torch

from braingpt.model.lm import build
from braingpt.model.step_stats import step_stats
from braingpt.train.validation import inside
from tests.tiny_runs import tiny

DEEP = ("model.layers=4", "model.depth.share=0.7", "model.depth.exits=[1,3]", "model.attention.layers=[0,2]")


@pytest.mark.parametrize(("architecture", "overrides"), [("dense", ()), ("v1", ()), ("v2", ()), ("v2", DEEP)])
@pytest.mark.parametrize("padded", [False, True])
def test_the_step_tells_what_recording_counts(architecture, overrides, padded):
    model = build(tiny(architecture, *overrides)).train()
    ids = torch.randint(0, 500, (3, 64), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros_like(ids).masked_fill(torch.arange(64) < 9, -1) if padded else None
    with model.recording() as records:
        model(ids, ids, segments_BL=segments).loss.backward()
    seen = {name: float(value) for name, value in step_stats(model).items()}
    counted = inside(records)
    assert seen.keys() - {"active"} == counted.keys() & seen.keys() - {"active"}
    # Recording counts padding, and the slots that tokens are packed into behind an exit; controllers count
    # tokens.
    for name in (
        {"attended"} & seen.keys()
        if padded
        else seen.keys() - {"active"} - ({"columns"} if model.exits else set())
    ):
        assert seen[name] == pytest.approx(counted[name], rel=1e-5), name
    share = model.parameters_active() / model.parameters_total()
    assert seen["active"] == pytest.approx(share, rel=1e-6 if not model.exits else 0.3)
    model.after_step()
    assert not any(
        float(selector.counted.sum()) for selector in model.modules() if hasattr(selector, "counted")
    )
