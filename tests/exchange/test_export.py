import json

import pytest
import torch

import braingpt
from braingpt.checkpoint.checkpoint import save
from braingpt.errors import UserError
from braingpt.exchange.export import export_checkpoint
from braingpt.model.columns.two_four import TwoFourLinear
from braingpt.tokenizer import Tokenizer
from tests.conftest import awake
from tests.tiny_runs import tiny

IDS = torch.arange(40)[None]


@pytest.mark.parametrize(
    ("dtype", "size", "rounding"), [("float32", 4, 0.0), ("bfloat16", 2, 2**-8), ("float16", 2, 2**-11)]
)
def test_an_export_loads_and_says_nearly_the_same(saved, tmp_path, dtype, size, rounding):
    result = export_checkpoint(saved, tmp_path / "out", dtype)
    assert result["largest_rounding"] <= rounding
    model, tokenizer = braingpt.load(tmp_path / "out")
    original, _ = braingpt.load(saved)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenizer.fingerprint == braingpt.Tokenizer.default().fingerprint
    masks = {
        f"{name}.weight": module.mask
        for name, module in original.named_modules()
        if isinstance(module, TwoFourLinear)
    }
    for (name, new), old in zip(model.named_parameters(), original.parameters(), strict=True):
        # what 2:4 prunes is not exported
        old = old * masks[name] if name in masks else old
        if old.ndim < 2 or dtype == "float32":
            # vectors are never rounded
            assert torch.equal(new, old), name
        else:
            assert (new - old).abs().max() <= rounding * old.abs().max(), name
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert weights < size * model.parameters_total() * 1.1 + 20_000
    with torch.no_grad():
        if dtype == "float32":
            assert torch.equal(model(IDS).logits, original(IDS).logits)
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert state["step"] == 7 and state["exported"] == {"from": "step-0000007", "dtype": dtype}
    assert not (tmp_path / "out" / "optimizer.safetensors").exists()


def test_nothing_is_overwritten(saved, tmp_path):
    (tmp_path / "mine").write_text("precious")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match="already exists"):
            export_checkpoint(saved, out)
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(UserError, match="did you mean 'float16'"):
        export_checkpoint(saved, tmp_path / "new", "flot16")
    assert not (tmp_path / "new").exists()


def test_two_four_weights_are_stored_compressed(tmp_path):
    recipe = tiny("v1", "model.columns.width=64")
    model = awake(recipe.model).float()
    source = save(
        tmp_path / "step-0000001", model=model, tokenizer=Tokenizer.default(), recipe=recipe, step=1, tokens=1
    )
    export_checkpoint(source, tmp_path / "out")
    exported = braingpt.load(tmp_path / "out")[0]
    halves = [
        (one, other)
        for one, other in zip(model.modules(), exported.modules(), strict=True)
        if isinstance(one, TwoFourLinear)
    ]
    assert halves and all(torch.equal(one.mask, other.mask) for one, other in halves)
    assert all(torch.equal(one.weight * one.mask, other.weight) for one, other in halves)
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (source, tmp_path / "out"))
    pruned = sum(one.mask.numel() for one, _ in halves)
    # 4 bytes of weight and one of mask become 2 and an eighth
    assert before - after == pytest.approx(pruned * (5 - 2 - 1 / 8), rel=0.05)
