import math

import pytest
import torch

from braingpt.errors import UserError
from braingpt.inspection.sparsity import SAMPLE, _entropy, sparsity_of_text, sparsity_of_tokens
from braingpt.model.layers import MLP
from braingpt.recipes import load_recipe
from braingpt.tokenizer import Tokenizer
from tests.conftest import SMALL, awake

IDS = torch.randint(97, (83,), generator=torch.Generator().manual_seed(0)).tolist()


def test_a_dense_model_leaves_out_nothing():
    model = awake(SMALL["dense"])
    report = sparsity_of_tokens(model, IDS, context=20)
    assert [layer.mixer for layer in report.layers] == ["attention"] * 2
    for row in [*report.layers, report.total]:
        assert (
            row.tokens == 83 and row.attended == row.keys_kept == row.computed == 1 and row.weights_zero == 0
        )
        assert row.columns_active is row.columns_dead is row.dendrites_open is None


def test_neurons_are_counted_on_what_the_layer_computes():
    model = awake(SMALL["dense"])
    fired = []
    for module in model.modules():
        if isinstance(module, MLP):
            module.up.register_forward_hook(
                lambda _m, _i, out: fired.append((out > 0).double().mean().item())
            )
    report = sparsity_of_tokens(model, IDS[:40], context=40)
    assert [layer.neurons_fired for layer in report.layers] == pytest.approx(fired)
    assert report.total.neurons_fired == pytest.approx(sum(fired) / 2)


def test_v1_is_sparse_in_keys_and_columns_and_leaves_out_the_values_of_dropped_keys_alone():
    model = awake(SMALL["v1"])
    report = sparsity_of_tokens(model, IDS, context=83)
    config = SMALL["v1"]
    # The rule of the recipe, counted by hand.
    keep = [max(min(query, 4), math.ceil(0.05 * query - 1e-6)) for query in range(1, 84)]
    for layer in report.layers:
        assert layer.keys_kept == pytest.approx(sum(keep) / (83 * 84 / 2))
        assert layer.columns_active == config.columns.active / config.columns.count
        assert 0 < layer.neurons_fired < layer.columns_active and 0 < layer.dendrites_open <= 1
        block = sum(p.numel() for name, p in model.blocks[0].named_parameters() if "bias" not in name)
        dense, dropped = 2 * 83 * block + 4 * 32 * 83 * 84 / 2, 2 * 32 * (83 * 84 / 2 - sum(keep))
        assert layer.computed == pytest.approx(1 - dropped / dense)


def test_the_two_four_form_is_found_in_the_weights_multiplied_with():
    sparse, full = (awake(SMALL["v1"].model_copy(update={"two_four": on})) for on in (True, False))
    block = sparse.blocks[0]
    mlp = block.mlp.up.weight.numel() + block.mlp.down.weight.numel()
    matrices = sum(p.numel() for p in block.parameters() if p.ndim >= 2)
    assert sparsity_of_tokens(sparse, IDS).layers[0].weights_zero == pytest.approx(0.5 * mlp / matrices)
    assert sparsity_of_tokens(full, IDS).total.weights_zero == 0


def test_v2_counts_chosen_tokens_and_winning_columns():
    model = awake(SMALL["v2"])
    with model.recording() as records, torch.no_grad():
        model.eval()(torch.tensor([IDS]))
    report = sparsity_of_tokens(model, IDS, context=83)
    for layer, record in zip(report.layers, records, strict=True):
        assert layer.columns_active == pytest.approx(3 / 9) and layer.columns_dead == int(
            (record.column_load == 0).sum()
        )
        assert record.column_load.sum() == 83 * 2 and 0 < layer.load_entropy <= 1
        assert layer.computed < 1
    attended = records[1].attended
    assert report.layers[1].attended == report.total.attended == attended / 83 < 1
    assert report.layers[1].keys_kept == pytest.approx(attended * (attended + 1) / (83 * 84))
    # A Mamba mixer has no keys to drop.
    assert report.layers[0].attended is report.layers[0].keys_kept is None


@pytest.mark.parametrize("recipe", ["nano-v2", "nano-v1"])
def test_with_sparsity_switched_off_none_is_reported(recipe):
    off = {
        "nano-v2": ["model.columns.active=16", "model.attention.rate=1.0"],
        "nano-v1": [
            "model.columns.active=32",
            "model.attention.keep=1.0",
            "model.attention.gate_threshold=0",
            "model.columns.firing=1",
            "model.two_four=false",
        ],
    }
    report = sparsity_of_tokens(
        awake(load_recipe(recipe, off[recipe]).model).float(),
        torch.randint(16_000, (60,)).tolist(),
        context=30,
    )
    total = report.total
    assert total.attended == total.keys_kept == total.columns_active == 1
    # The packed attention multiplies its whole square, a dense causal one counts half of it.
    assert 1 <= total.computed < 1.05
    assert total.columns_dead == 0 and total.load_entropy == pytest.approx(1) and total.weights_zero == 0
    assert total.dendrites_open in (None, 1)
    # A ReLU is half silent, whatever else is switched off.
    assert 0.3 < total.neurons_fired < 0.7


def test_windows_hold_every_token_once_and_leave_no_trace():
    model = awake(SMALL["v2"])
    model.train()
    report = sparsity_of_tokens(model, IDS, context=10, rows=3)
    assert report.total.tokens == len(IDS) == 83 and report.context == 10
    assert model.training and all(getattr(module, "record", None) is None for module in model.modules())
    assert report.as_dict()["layers"][0]["mixer"] == "mamba"


def test_text_is_read_and_an_empty_one_refused():
    model, tokenizer = (
        awake(load_recipe("nano-dense", ["model.hidden=32"]).model).float(),
        Tokenizer.default(),
    )
    assert sparsity_of_text(model, tokenizer, SAMPLE).tokens == len(tokenizer.encode(SAMPLE, language="auto"))
    with pytest.raises(UserError, match="empty"):
        sparsity_of_text(model, tokenizer, " \n")
    with pytest.raises(UserError, match="no tokens"):
        sparsity_of_tokens(model, [])


def test_entropy():
    assert _entropy(torch.tensor([5, 5, 5, 5])) == pytest.approx(1) and _entropy(torch.tensor([9, 0, 0])) == 0
    assert _entropy(torch.tensor([4])) is None and _entropy(torch.tensor([0, 0])) is None
