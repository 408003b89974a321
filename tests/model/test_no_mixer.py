"""Blocks without a mixer; `test_contracts.py` holds the promises of the whole model (`v2-depth`)."""

import pytest
import torch
from pydantic import ValidationError

from braingpt.model.config import V2Config
from braingpt.model.config_parts import LexicalConfig
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import build
from braingpt.model.mixers.none import NoMixer
from braingpt.model.native_step import unavailable_reason
from braingpt.model.outline import layer_kinds, outline, with_layers
from tests.conftest import SMALL, awake

IDS = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(0))


def config(mamba: tuple[int, ...] | None, attention: tuple[int, ...] = (), layers: int = 4) -> V2Config:
    v2 = SMALL["v2"]
    parts = {"mamba": {"layers": mamba}, "attention": {"layers": attention}}
    merged = {key: {**getattr(v2, key).model_dump(), **value} for key, value in parts.items()}
    return V2Config(**{**v2.model_dump(), "layers": layers, **merged})


def test_layers_have_the_mixer_that_the_settings_name():
    assert layer_kinds(config(None, (2,))) == ["mamba", "mamba", "selective", "mamba"]
    kinds = ["none", "mamba", "selective", "none"]
    assert layer_kinds(config((1,), (2,))) == kinds
    model = build(config((1,), (2,)))
    assert [block.mixer.kind for block in model.blocks] == kinds
    for sample in (["none"], ["mamba", "none"], kinds):
        assert layer_kinds(with_layers(model.config, sample)) == sample


def test_a_model_without_mixers_sees_each_token_alone():
    model = awake(config(())).eval()
    changed = IDS.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 97
    with torch.no_grad():
        before, after = model(IDS).logits, model(changed).logits
        state = model.new_state(2)
        model(IDS, state=state)
    same = torch.arange(12) != 3
    torch.testing.assert_close(before[:, same], after[:, same])
    assert not torch.allclose(before[:, 3], after[:, 3])
    assert state.bytes() == model.state_bytes(12) == 0


def test_no_mixer_costs_nothing():
    full, half = build(config(None)), build(config((0, 2)))
    mixer = full.blocks[1].mixer
    assert full.parameters_total() - half.parameters_total() == 2 * mixer.parameters_active()
    assert full.parameters_active() - half.parameters_active() == 2 * mixer.parameters_active()
    assert full.flops_per_token(32) - half.flops_per_token(32) == 2 * mixer.flops(32)
    assert half.state_bytes(100) == full.state_bytes(100) / 2
    shape = outline(half.config)
    assert shape.parameters_total() == half.parameters_total()
    assert shape.flops_per_token(32) == half.flops_per_token(32)


def test_the_native_step_knows_no_mixer():
    model = build(config((1,), (2,))).float()
    assert isinstance(model.blocks[0].mixer, NoMixer)
    assert "NoMixer" not in str(unavailable_reason(model))


def test_every_weight_learns():
    lexical = LexicalConfig(rows=61, width=4, hashes=3)
    model = awake(config((1,), (2,)).model_copy(update={"lexical": lexical})).train()
    model(IDS[:, :-1], IDS[:, 1:]).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_stage_of_growth_has_its_own_layers_only():
    assert stage_config(config((1, 3), (2,)), 2).mamba.layers == (1,)
    assert stage_config(config(None), 2).mamba.layers is None


@pytest.mark.parametrize(
    ("mamba", "attention", "words"),
    [
        ((4,), (), r"model.mamba.layers \[4\] must lie in 0..3"),
        ((0, 2), (2,), "model.attention.layers and model.mamba.layers both hold layer 2"),
        ((), (-1,), r"model.attention.layers \[-1\] must lie in 0..3"),
    ],
)
def test_wrong_layers_are_named(mamba, attention, words):
    with pytest.raises(ValidationError, match=words):
        config(mamba, attention)
