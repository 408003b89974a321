import pytest
import torch

from braingpt.model.lm import build
from braingpt.recipes import load_recipe, shipped
from braingpt.train.plan.plan import build_plan, plan_run
from braingpt.train.plan.step_cost import StepCost
from braingpt.utils.formatting import byte_size, short_count
from tests.tiny_runs import tiny


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_figures_are_those_of_the_real_model(architecture):
    recipe = tiny(architecture, "train.batch=8", "train.steps=50", "train.optimizer=adamw")
    model = build(recipe)
    plan = build_plan(recipe, data_tokens=3200)
    count = sum(p.numel() for p in model.parameters())
    assert plan.parameters_total == count == model.parameters_total()
    assert plan.gradients_bytes == 4 * count and plan.optimizer_bytes == 8 * count
    assert plan.weights_bytes == sum(
        t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()]
    )
    assert plan.memory_bytes == plan.weights_bytes + 12 * count
    assert (plan.tokens_per_step, plan.tokens, plan.epochs) == (8 * 32, 50 * 8 * 32, 4.0)
    assert plan.training_flops == pytest.approx(3 * model.flops_per_token(32) * plan.tokens)
    assert build_plan(recipe, None, autocast=True).memory_bytes > plan.memory_bytes


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_is_as_large_as_planned(tmp_path, data, optimizer):
    from pathlib import Path

    from braingpt.train.loop import train

    recipe = tiny("v2", "train.steps=1", f"train.optimizer={optimizer}", "model.lexical.rows=3000")
    folder = Path(train(recipe, tmp_path / "run", [data], device="cpu").checkpoint)
    real = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert real == pytest.approx(build_plan(recipe, None).checkpoint_bytes, rel=0.02)


def test_a_table_takes_the_gradient_of_the_rows_looked_up_and_a_number_a_row():
    plain, large = (
        build_plan(tiny("v2", "train.optimizer=muon", f"model.lexical.rows={rows}"), None)
        for rows in (100, 10**6)
    )
    more = 10**6 - 100
    assert large.parameters_total - plain.parameters_total == 32 * more
    assert large.parameters_active == plain.parameters_active
    assert large.optimizer_bytes - plain.optimizer_bytes == 4 * more
    assert large.checkpoint_bytes - plain.checkpoint_bytes == 4 * 33 * more
    # 16 rows of 32 float32 numbers and an int64 place, for 4 windows of 32 tokens; the small table is all
    # looked up
    assert large.gradients_bytes - plain.gradients_bytes == 4 * 32 * 16 * (32 * 4 + 8) - 4 * 32 * 100
    several = build_plan(tiny("v2", "model.lexical.rows=1000000"), None, processes=2)
    assert several.gradients_bytes == 4 * several.parameters_total


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_can_be_planned_without_memory(name):
    plan = build_plan(load_recipe(name), None)
    assert 0 < plan.parameters_active <= plan.parameters_total and name in plan.summary()


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("-3090")])
def test_presets_leave_half_of_a_3090_to_activations(name):
    """Weights, gradients, moments and bfloat16 copies; the micro-batch is open, so that what is left is
    filled by measure.
    """
    recipe, base = load_recipe(name), load_recipe(name.removesuffix("-3090"))
    plan = build_plan(recipe, None, autocast=True)
    assert (
        recipe.model == base.model
        and recipe.train.micro_batch is None
        and recipe.train.batch == base.train.batch
    )
    assert plan.memory_bytes < 12e9 and plan.host_bytes < 42e9


def test_figures_for_people():
    assert [short_count(n) for n in (999, 1500, 60_100_000, 2.59e9)] == ["999", "1.5k", "60.1M", "2.6B"]
    assert [byte_size(n) for n in (12, 1.5e6, 24e9)] == ["12 B", "1.5 MB", "24.0 GB"]


def test_no_step_is_planned_faster_than_matrix_products(monkeypatch):
    """Timings of a few layers differ by nothing, or less, where other programs disturb them."""
    monkeypatch.setattr(
        "braingpt.train.plan.plan.measure_step_cost", lambda recipe, device: StepCost(0, 0, 0, 0, 0)
    )
    monkeypatch.setattr("braingpt.train.plan.plan.matmul_flops", lambda device, dtype: 1e9)
    plan, _ = plan_run(tiny("dense"), torch.device("cpu"), None, thorough=True)
    assert plan.seconds == pytest.approx(plan.training_flops / 1e9)


def test_epochs_by_language_are_what_the_mixture_draws(data):
    from braingpt.train.batches import batches_of, open_data

    recipe = tiny("dense", "data.mixture={ko: 3, en: 1}")
    tokenizer, shards = open_data([data], recipe)
    batches = batches_of(recipe, shards, tokenizer)
    epochs = batches.epochs(recipe.train.steps)
    drawn = [language for step in range(recipe.train.steps) for language in batches.batch(step).language]
    assert epochs == {
        language: drawn.count(language) / batches.windows[language] for language in ("ko", "en")
    }
    plan = build_plan(recipe, 3200, epochs_by_language=epochs)
    assert f"(ko {epochs['ko']:.2g}, en {epochs['en']:.2g})" in plan.summary()
    assert plan.as_dict()["epochs_by_language"] == epochs
