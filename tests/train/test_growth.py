"""A run that grows keeps its function and the old blocks' moments, and stopping anywhere leaves no trace."""

import json

import pytest
import torch

from braingpt.checkpoint import checkpoint, listing
from braingpt.checkpoint.load import load
from braingpt.errors import UserError
from braingpt.model.growth_stages import stage_config
from braingpt.model.lm import build
from braingpt.optim.optimizer import pack_state
from braingpt.optim.schedule import layers_at
from braingpt.recipes import load_recipe
from braingpt.train.growth import grow_if_due
from braingpt.train.loop import Trainer, train
from braingpt.train.plan.plan import build_plan
from braingpt.train.plan.step_cost import measure_step_cost
from braingpt.train.run.folder import RunFolder, read_metrics
from braingpt.train.run.progress import Reporter
from braingpt.train.run.report import open_summary
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt, history, same_tensors
from tests.train.test_stability import poisoned

CPU = torch.device("cpu")
# The model grows after steps 2 and 5.
GROWING = (
    "model.layers=3",
    "train.growth=[0.25, 0.6]",
    "train.steps=8",
    "train.eval_every=4",
    "train.keep=9",
)
SETTINGS = {
    "dense": ("train.average=0.9", "train.optimizer=adamw", "train.lengths=[{until: 0.5, context: 16}]"),
    "v1": (
        "train.optimizer=muon",
        "model.early_exit.loss=0.5",
        "model.early_exit.dropout=0.3",
        "model.early_exit.places=[1, 2]",
    ),
    "v2": ("train.average=0.9", "train.optimizer=muon", "model.attention.layers=[0, 2]"),
}


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_stopped_before_after_and_between_growing_equals_never_stopped(tmp_path, data, architecture):
    recipe = tiny(architecture, *GROWING, *SETTINGS[architecture])
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    # Where growth is due, just after it, within a stage.
    for at in (2, 3, 6):
        train(recipe, tmp_path / "parts", [data], resume="auto", device="cpu", reporter=StopAt(at))
        torch.manual_seed(99)
    done = train(recipe, tmp_path / "parts", resume="auto", device="cpu")
    assert (done.step, done.best) == (8, whole.best) and history(tmp_path / "whole") == history(
        tmp_path / "parts"
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_tensors(
            tmp_path / "whole/checkpoints/step-0000008" / name,
            tmp_path / "parts/checkpoints/step-0000008" / name,
        )
    records = read_metrics(tmp_path / "parts")
    layers = [(record["stage"], record["layers"]) for record in records if record["kind"] == "train"]
    assert layers == [(1, 1)] * 2 + [(2, 2)] * 3 + [(3, 3)] * 3
    names = ("step", "layers_before", "layers", "stage", "stages")
    growth = [tuple(r[name] for name in names) for r in records if r["kind"] == "growth"]
    assert growth == [(3, 1, 2, 2, 3), (6, 2, 3, 3, 3)]
    for step, count in ((2, 1), (3, 2), (6, 3), (8, 3)):
        folder = tmp_path / "parts/checkpoints" / listing.name_of(step)
        model, tokenizer = load(folder)
        assert (
            len(model.blocks) == count
            and len(model.generate(tokenizer.encode("아침", language="ko"), max_new_tokens=3)) == 3
        )
        assert load_recipe(folder / "recipe.yaml").model == stage_config(recipe.model, count)
        assert checkpoint.run_recipe(folder).model == recipe.model


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_growing_keeps_function_moments_and_average(tmp_path, data, architecture, optimizer):
    recipe = tiny(architecture, *GROWING, f"train.optimizer={optimizer}", "train.average=0.9")
    trainer = Trainer(recipe, RunFolder(tmp_path), [data], CPU, Reporter())
    for _ in range(2):
        trainer.update()
        trainer.step += 1
    ids = torch.randint(0, recipe.model.vocab, (2, 32))
    old, moments = (
        trainer.learner.model.eval(),
        {
            key: value.clone()
            for key, value in pack_state(trainer.learner.model, trainer.learner.optimizer).items()
        },
    )
    with torch.no_grad():
        plain, average = (
            old(ids).logits,
            {name: value.clone() for name, value in trainer.learner.average.values.items()},
        )
        with trainer.learner.average.in_place():
            averaged = old(ids).logits
        assert len(trainer.learner.model.blocks) == 1
        trainer.learner = grow_if_due(trainer.learner, trainer.step, recipe, trainer.placement)
        assert len(trainer.learner.model.blocks) == 2
        assert grow_if_due(trainer.learner, trainer.step, recipe, trainer.placement) is trainer.learner
        assert torch.equal(trainer.learner.model.eval()(ids).logits, plain)
        with trainer.learner.average.in_place():
            assert torch.equal(trainer.learner.model(ids).logits, averaged) and not torch.equal(
                plain, averaged
            )
    after = pack_state(trainer.learner.model, trainer.learner.optimizer)
    assert after.keys() == moments.keys() and all(
        torch.equal(value, after[name]) for name, value in moments.items()
    )
    assert all(torch.equal(value, trainer.learner.average.values[name]) for name, value in average.items())
    fresh = build(recipe, seed=recipe.train.seed).blocks[1].state_dict()
    assert all(
        torch.equal(value, fresh[name])
        for name, value in trainer.learner.model.blocks[1].state_dict().items()
    )
    trainer.update()
    moved = [
        name
        for name, value in trainer.learner.model.blocks[1].state_dict().items()
        if not torch.equal(value, fresh[name])
    ]
    assert moved and any(
        ".blocks.1." in name for name in pack_state(trainer.learner.model, trainer.learner.optimizer)
    )


def test_a_lost_run_goes_back_to_a_shallower_stage_and_grows_again(tmp_path, data, monkeypatch):
    monkeypatch.setattr("braingpt.train.stability.MAX_BAD", 2)
    poisoned(monkeypatch, range(5, 8))
    run = tmp_path / "run"
    result = train(
        tiny("v2", "train.growth=[0.3]", "train.steps=10", "train.save_every=2", "train.skip_sigma=6"),
        run,
        [data],
        device="cpu",
    )
    assert (result.step, result.rewinds) == (10, 1)
    records = read_metrics(run)
    assert next(r["step"] for r in records if r["kind"] == "rewind") == 4
    assert [r["layers"] for r in records if r["kind"] == "train"] == [1] * 3 + [2] * 7


def test_a_longer_run_never_shrinks(tmp_path, data):
    run = tmp_path / "run"
    train(tiny("dense", "train.growth=[0.5]", "train.steps=4"), run, [data], device="cpu")
    longer = tiny("dense", "train.growth=[0.5]", "train.steps=20")
    assert layers_at(4, longer) == 1, "at this step of a run of 20 the model would still be shallow"
    train(longer, run, resume="auto", device="cpu", reporter=StopAt(6))
    assert [record["layers"] for record in read_metrics(run) if record["kind"] == "train"] == [
        1,
        1,
        2,
        2,
        2,
        2,
    ]
    with pytest.raises(
        UserError, match=r"trained with train\.growth = \[0\.5\], the recipe asks for nothing"
    ):
        train(tiny("dense"), run, resume="auto", device="cpu")


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_the_plan_counts_memory_of_the_last_stage_and_work_of_all(architecture):
    grown = tiny(architecture, "model.layers=6", "train.growth=doubling", "train.steps=1500")
    plain, plan = (
        build_plan(tiny(architecture, "model.layers=6", "train.steps=1500"), None),
        build_plan(grown, None),
    )
    assert plan.stages == ((1, 100), (2, 200), (3, 400), (6, 800)) and plain.stages == ((6, 1500),)
    assert plan.memory_bytes == plain.memory_bytes and plan.flops_per_token == plain.flops_per_token
    work = sum(
        build(stage_config(grown.model, layers)).flops_per_token(32) * steps for layers, steps in plan.stages
    )
    assert (
        plan.training_flops == pytest.approx(3 * 4 * 32 * work) and plan.training_flops < plain.training_flops
    )


def test_the_plan_tries_the_time_of_the_mean_stage(monkeypatch):
    monkeypatch.setattr(
        "braingpt.train.plan.step_cost._SmallModel.measure",
        lambda learner, rows, length: (10**6, float(len(learner.model.blocks) * rows)),
    )
    monkeypatch.setattr(
        "braingpt.train.plan.step_cost._SmallModel.step", lambda learner: float(len(learner.model.blocks))
    )
    times = [
        measure_step_cost(tiny("dense", "model.layers=6", "train.steps=1500", *more), CPU).optimizer_seconds
        for more in ((), ("train.growth=doubling",))
    ]
    assert times == pytest.approx([6, (100 * 1 + 200 * 2 + 400 * 3 + 800 * 6) / 1500])


def test_what_does_not_fit_is_refused_in_a_line():
    for setting, words in {
        "0.5": r"train\.growth is 'doubling' .* or a list of shares .*, not 0\.5",
        "[0.4, 0.2, 0.6]": r"list of shares of the steps that rise between 0 and 1, like \[0\.1, 0\.3\],"
        r" not \[0\.4, 0\.2, 0\.6\]",
        "[]": r"not \[\]",
        "[0.1, x, 0.5]": r"not \[0\.1, 'x', 0\.5\]",
        "[0.5]": r"6 layers grows in 4 stages \(of 1, 2, 3, 6 layers\), so it takes 3 shares of the steps,"
        r" not 1",
    }.items():
        with pytest.raises(UserError, match=words):
            tiny("dense", "model.layers=6", f"train.growth={setting}")
    with pytest.raises(UserError, match="nothing to grow: the model has one layer"):
        tiny("dense", "model.layers=1", "train.growth=doubling")
    with pytest.raises(UserError, match=r"train\.growth and model\.depth\.share below 1 do not go together"):
        tiny("v2", "model.layers=6", "model.depth.share=0.7", "train.growth=doubling")
    assert tiny("dense", "model.layers=6", "train.steps=5", "train.growth=doubling").remarks()[-2] == (
        "train.growth: one of the stages has no step of the 5"
    )


def test_what_a_person_sees(tmp_path, data, capsys):
    from rich.console import Console

    from braingpt.train.run.progress import PlainReporter

    train(
        tiny("v1", "train.growth=[0.5]", "train.steps=4"),
        tmp_path / "run",
        [data],
        device="cpu",
        reporter=PlainReporter(Console(width=80)),
    )
    lines = capsys.readouterr().out.splitlines()
    assert (
        "grows: 1 layer at first, 2 after step 2" in lines and "step 3  stage 2 of 2: 1 -> 2 layers" in lines
    )
    last = next(line for line in lines if line.startswith("step 4/4"))
    flips = [record["flip_rate"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert (
        "stage 2, 2 layers  flips" in last
        and f"{flips[-1]:.2%}".replace("%", " %") in last
        and all(0 < rate < 1 for rate in flips)
    )
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])["layers"] == 1
    figures = open_summary(tmp_path / "run")
    assert (figures["step"], figures["stage"], figures["layers"]) == (4, 2, 2)
