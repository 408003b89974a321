import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.checkpoint import checkpoint, listing
from braingpt.errors import Failure
from braingpt.train import micro_batches
from braingpt.train.loop import Trainer, train
from braingpt.train.run.folder import read_metrics
from braingpt.train.stability import LEAST, MAX_BAD, MAX_FAR, SPIKE_WINDOW, Guard, Lost, is_spike
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt, history, same_tensors

CPU = torch.device("cpu")


def usual(guard, count=LEAST):
    for number in range(count):
        assert not guard.judge(torch.tensor(1.0 + 0.02 * (number % 5)))


def test_only_what_is_not_finite_before_enough_is_known():
    guard = Guard(6.0, CPU)
    assert (
        not guard.judge(torch.tensor(1.0))
        and not guard.judge(torch.tensor(1e6))
        and not guard.judge(torch.tensor(0.0))
    )
    assert guard.judge(torch.tensor(math.nan)) and guard.judge(torch.tensor(math.inf))


def test_far_out_norms_are_left_out_until_they_are_the_level():
    guard = Guard(6.0, CPU)
    usual(guard)
    assert [float(guard.judge(torch.tensor(50.0))) for _ in range(MAX_FAR + 2)] == [1.0] * MAX_FAR + [
        0.0,
        0.0,
    ]
    patient = Guard(None, CPU)
    usual(patient)
    assert not patient.judge(torch.tensor(1e9)) and patient.judge(torch.tensor(math.inf))


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_norms_that_spread_as_usual_are_all_taken_at_any_scale(scale, seed):
    guard = Guard(6.0, CPU)
    norms = scale * torch.randn(200, generator=torch.Generator().manual_seed(seed)).mul(0.3).exp()
    assert not any(guard.judge(norm) for norm in norms)


@given(
    norms=st.lists(st.one_of(st.floats(0.5, 2), st.just(math.nan), st.just(100.0)), min_size=1, max_size=90),
    cut=st.integers(0, 89),
)
@settings(max_examples=30, deadline=None)
def test_a_restored_guard_judges_like_one_never_stopped(norms, cut):
    def go_on(guard, part):
        return [bool(guard.judge(torch.tensor(norm))) for norm in part], [
            guard.note(norm, norm, False) for norm in part
        ]

    whole = Guard(6.0, CPU)
    judged = go_on(whole, norms)
    first, second = Guard(6.0, CPU), Guard(6.0, CPU)
    parts = go_on(first, norms[:cut])
    second.restore(json.loads(json.dumps(first.state())))
    more = go_on(second, norms[cut:])
    assert judged == (parts[0] + more[0], parts[1] + more[1]) and whole.state() == second.state()


def test_spikes_are_flagged_and_twenty_in_a_row_are_a_lost_run():
    guard = Guard(6.0, CPU)
    for number in range(SPIKE_WINDOW):
        assert guard.note(3.0 + 0.01 * (number % 3), 1.0, False) == {}
    assert (
        guard.note(3.3, 1.0, False) == {}
        and guard.note(9.0, 1.0, False) == {"spike": True}
        and not guard.calm
    )
    assert guard.note(3.0, 1.0, False) == {} and guard.calm and guard.spikes == 1
    for _ in range(MAX_BAD):
        guard.note(9.0, 1.0, False)
        guard.check(99)
    guard.note(9.0, 1.0, False)
    with pytest.raises(Lost, match="above its former level for 21 steps up to step 99"):
        guard.check(99)
    guard.new_level()
    assert guard.note(9.0, 1.0, False) == {} and is_spike(math.nan, [])


def poisoned(monkeypatch, steps, value=math.nan):
    """Make the loss of these steps' batches, the first time they are read, not a number, through all of the
    model.
    """
    forward, seen = micro_batches.gradients, []

    def poisoning(learner, batching, step):
        def broken(ids, targets, **where):
            out = learner.forward(ids, targets, **where)
            return out._replace(loss=out.loss * value)

        if step + batching.loader.offset in steps:
            seen.append(step)
            return forward(replace(learner, forward=broken), batching, step)
        return forward(learner, batching, step)

    monkeypatch.setattr(micro_batches, "gradients", poisoning)
    return seen


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_a_step_that_is_left_out_changes_nothing_and_names_its_windows(
    tmp_path, data, monkeypatch, architecture, optimizer
):
    update, snapshots = Trainer.update, []

    def state(learner):
        tensors = {**learner.model.state_dict(), **dict(learner.model.named_buffers())}
        tensors |= checkpoint.contents(learner.model, learner.optimizer, copied=True).training
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def watched(self):
        if self.step in (2, 3):
            snapshots.append(state(self.learner))
        return update(self)

    monkeypatch.setattr(Trainer, "update", watched)
    poisoned(monkeypatch, {2})
    result = train(
        tiny(architecture, "train.steps=5", f"train.optimizer={optimizer}"),
        tmp_path / "run",
        [data],
        device="cpu",
    )
    before, after = snapshots
    assert all(torch.equal(before[name], after[name]) for name in before), [
        n for n in before if not torch.equal(before[n], after[n])
    ]
    assert result.skipped == 1 and result.step == 5 and math.isfinite(result.loss)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    third = next(record for record in records if record["step"] == 3 and record["kind"] == "train")
    assert third["loss"] is None and third["grad_norm"] is None and third["skipped"] == "gradient not finite"
    incident = next(record for record in records if record["kind"] == "incident")
    assert incident["step"] == 3 and sum(map(len, incident["windows"].values())) == 4


def test_far_out_gradients_are_left_out_of_a_real_run_and_it_resumes_alike(tmp_path, data, monkeypatch):
    monkeypatch.setattr("braingpt.train.stability.LEAST", 4)
    poisoned(monkeypatch, {8, 13}, 1e4)
    recipe = tiny("dense")
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    assert whole.skipped == 2
    train(recipe, tmp_path / "halves", [data], device="cpu", reporter=StopAt(9))
    again = train(recipe, tmp_path / "halves", resume="auto", device="cpu")
    assert again.skipped == 2 and history(tmp_path / "whole") == history(tmp_path / "halves")
    assert same_tensors(
        tmp_path / "whole/checkpoints/step-0000020/model.safetensors",
        tmp_path / "halves/checkpoints/step-0000020/model.safetensors",
    )


def test_a_lost_run_goes_back_and_passes_over_the_data_that_led_astray(tmp_path, data, monkeypatch):
    monkeypatch.setattr("braingpt.train.stability.MAX_BAD", 3)
    seen = poisoned(monkeypatch, range(12, 17))
    recipe = tiny("dense", "train.save_every=5")
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    assert (whole.step, whole.rewinds, seen) == (20, 1, [12, 13, 14, 15, 10]), (
        "by number of step; data of 12 to 16"
    )
    rewind = next(record for record in read_metrics(tmp_path / "whole") if record["kind"] == "rewind")
    assert (rewind["step"], rewind["astray"], rewind["offset"]) == (
        10,
        16,
        6,
    ) and "no usable gradient in 4 steps" in rewind["reason"]
    steps = [record["step"] for record in read_metrics(tmp_path / "whole") if record["kind"] == "train"]
    assert steps == list(range(1, 21)), "what was given up is not in the history"
    seen.clear()
    train(recipe, tmp_path / "halves", [data], device="cpu", reporter=StopAt(18))
    again = train(recipe, tmp_path / "halves", resume="auto", device="cpu")
    assert again.rewinds == 1 and history(tmp_path / "whole") == history(tmp_path / "halves")


def test_a_run_that_cannot_be_helped_is_given_up_with_its_last_good_checkpoint(tmp_path, data, monkeypatch):
    poisoned(monkeypatch, range(12, 999))
    recipe = tiny("dense", "train.steps=99", "train.rewinds=1", "train.save_every=5", "train.eval_every=99")
    with pytest.raises(
        Failure,
        match=r"no usable gradient in 21 steps up to step 31;"
        r" the last good checkpoint is .*step-0000010; try a lower",
    ):
        train(recipe, tmp_path / "run", [data], device="cpu")
    assert listing.list_checkpoints(tmp_path / "run")[0].name == "step-0000010", (
        "kept, though three are newer"
    )
    poisoned(monkeypatch, range(999))
    with pytest.raises(Failure, match=r"21 steps up to step 21; try a lower train\.lr"):
        train(recipe, tmp_path / "new", [data], device="cpu")


def test_a_loss_that_stays_high_is_a_new_level_once_no_going_back_is_left(tmp_path, data, monkeypatch):
    monkeypatch.setattr("braingpt.train.stability.MAX_BAD", 2)
    monkeypatch.setattr("braingpt.train.stability.SPIKE_WINDOW", 4)
    monkeypatch.setattr("braingpt.train.stability.SPIKE_SPREADS", 0.0)
    poisoned(monkeypatch, range(10, 999), 3.0)
    listener = StopAt(-1)
    recipe = tiny("dense", "train.lr=1e-9", "train.rewinds=0")
    result = train(recipe, tmp_path / "run", [data], reporter=listener, device="cpu")
    assert (
        result.step == 20
        and result.spikes == 3
        and any("counts as the new level" in note for note in listener.notes)
    )
