"""int8 weights for decoding: close to the float model, a quarter of the bytes, every path gives the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.kernels.int8 import int8_linear, quantize, reference
from braingpt.model.lm import build
from tests.conftest import SMALL, awake


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 70), st.integers(1, 50), st.integers(0, 10**6))
def test_rounding_is_to_the_nearest_level(rows, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    values, scale = quantize(weight)
    assert values.dtype == torch.int8 and values.abs().max() <= 127
    assert ((values * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()
    x = torch.randn(rows, inputs, generator=generator)
    expected = reference(x.double(), values, scale)
    # bfloat16 activations and results: eight bits each.
    tolerance = 0.02 * float(x.norm(dim=-1).max() * weight.norm(dim=-1).max())
    assert (int8_linear(x, values, scale).double() - expected).abs().max() <= tolerance


def test_a_weight_of_zeros_stays_zero():
    values, scale = quantize(torch.zeros(3, 5))
    assert int8_linear(torch.ones(1, 5), values, scale).abs().max() == 0


def test_the_int8_model_predicts_nearly_the_same(small, architecture):
    model, ids = (
        small.float().eval(),
        torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        expected = model(ids).logits
        model.to_int8()
        found = model(ids).logits
        state = model.new_state(2)
        steps = torch.stack([model.step(ids[:, t], state) for t in range(24)], 1)
    # A choice (a threshold, a top-k) may flip for a token; most of them do not.
    typical = expected.std()
    assert ((found - expected).abs().mean(-1) < 0.15 * typical).float().mean() > 0.8
    assert ((steps - found).abs().mean(-1) < 0.15 * typical).float().mean() > 0.8
    assert model(ids, ids).loss > 0


def test_a_quarter_of_the_bytes_and_the_same_arithmetic():
    model = build(SMALL["dense"])
    total, active = model.parameters_total(), model.parameters_active()
    model.to_int8()
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()) if not t.is_meta)
    # of such short rows the scales are a tenth
    assert held < 0.4 * 4 * total
    assert (model.parameters_total(), model.parameters_active()) == (total, active)


def test_generation_runs_on_int8_weights():
    model = awake(SMALL["v2"]).float()
    model.to_int8()
    tokens = model.generate([1, 2, 3], 10, temperature=0)
    assert len(tokens) == 10 and tokens == model.generate([1, 2, 3], 10, temperature=0)


def test_the_reference_can_be_forced(monkeypatch):
    x, (values, scale) = torch.randn(1, 16), quantize(torch.randn(8, 16))
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    assert torch.equal(int8_linear(x, values, scale), reference(x, values, scale))


@pytest.mark.parametrize("command", ["generate", "eval"])
def test_an_unknown_dtype_is_refused(command, tmp_path, monkeypatch, capsys):
    from braingpt.cli.console import guarded
    from braingpt.cli.main import app

    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: app([command, "--dtype", "int9"], standalone_mode=False)) == 2
    assert capsys.readouterr().err == "braingpt: unknown dtype 'int9'; did you mean 'int8'?\n"
