import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from braingpt.checkpoint import listing
from braingpt.checkpoint.load import load
from braingpt.errors import Failure, UserError
from braingpt.train import micro_batches
from braingpt.train.loop import Trainer, train
from braingpt.train.run.folder import locked, read_metrics
from braingpt.train.run.progress import Reporter
from tests.tiny_runs import tiny

TIMING = ("tokens_per_second", "seconds", "data_seconds", "memory_bytes")


class StopAt(Reporter):
    """Sends this process the signal a user's Ctrl-C or a scheduler would, after step `at`."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        self.at, self.number, self.notes = at, number, []

    def step(self, record):
        if record["step"] == self.at:
            os.kill(os.getpid(), self.number)

    def note(self, text):
        self.notes.append(text)


def history(run: Path) -> list[dict]:
    return [
        {key: value for key, value in record.items() if key not in TIMING} for record in read_metrics(run)
    ]


def same_tensors(one: Path, two: Path) -> bool:
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
# Between two saves; where a save and a validation are due.
@pytest.mark.parametrize(("at", "optimizer"), [(7, "muon"), (10, "adamw")])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, data, architecture, at, optimizer):
    sparse = ["model.lexical.rows=300", "model.head.kind=columns"] if architecture == "v2" else []
    recipe = tiny(architecture, f"train.optimizer={optimizer}", *sparse)
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    assert (whole.step, whole.tokens, whole.interrupted) == (20, 20 * 4 * 32, False)
    half = train(recipe, tmp_path / "halves", [data], device="cpu", reporter=StopAt(at, signal.SIGTERM))
    assert (
        half.interrupted and half.step == at and listing.newest(tmp_path / "halves").name == f"step-{at:07d}"
    )
    torch.manual_seed(99)
    done = train(recipe, tmp_path / "halves", resume="auto", device="cpu")
    assert done.step == 20 and done.tokens == whole.tokens and done.best == whole.best
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_tensors(Path(whole.checkpoint) / name, Path(done.checkpoint) / name)
    assert history(tmp_path / "whole") == history(tmp_path / "halves")
    assert [record["step"] for record in history(tmp_path / "whole") if record["kind"] == "validation"] == [
        10,
        20,
    ]


def test_resuming_repeats_the_revival_of_columns(tmp_path, data, monkeypatch):
    monkeypatch.setattr("braingpt.model.columns.competition.REVIVE_AFTER", 3)
    recipe = tiny(
        "v2", "train.steps=10", "model.columns.count=200", "model.columns.width=4", "train.eval_every=10"
    )
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    train(recipe, tmp_path / "halves", [data], device="cpu", reporter=StopAt(6, signal.SIGTERM))
    torch.manual_seed(99)
    done = train(recipe, tmp_path / "halves", resume="auto", device="cpu")
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_tensors(Path(whole.checkpoint) / name, Path(done.checkpoint) / name)
    revived = [
        load_file(path / "model.safetensors")["blocks.0.mlp.revived"]
        for path in listing.list_checkpoints(tmp_path / "halves")
    ]
    assert len(revived) > 1 and all(int(count) > 0 for count in revived) and revived[0] != revived[-1]


def test_it_learns_and_the_result_loads(tmp_path, data):
    result = train(tiny("v2", "train.steps=60", "train.lr=1e-2"), tmp_path / "run", [data], device="cpu")
    records = read_metrics(tmp_path / "run")
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(losses) == 60 and losses[0] == pytest.approx(math.log(16448), abs=0.2) and losses[-1] < 5
    last = records[-1]
    assert (
        last["kind"] == "validation"
        and last["bits_per_byte"] > 0
        and set(last["by_language"]) == {"ko", "en"}
    )
    assert set(records[0]) == {
        "kind",
        "step",
        "loss",
        "lr",
        "grad_norm",
        "tokens",
        "tokens_per_second",
        "seconds",
        "data_seconds",
        "memory_bytes",
        "inside",
    }
    assert (
        0.05 < last["inside"]["attended"] < 0.5
        and last["inside"]["columns"] == 3 / 17
        and last["inside"]["imbalance"] >= 1
    )
    assert result.peak_memory_bytes > 1e6 and result.loss == losses[-1]
    model, tokenizer = load(tmp_path / "run")
    assert (
        not model.training
        and len(model.generate(tokenizer.encode("아침", language="ko"), max_new_tokens=4)) == 4
    )


@pytest.mark.parametrize("architecture", ["v1", "v2"])
def test_validation_sees_the_weights_of_its_step(tmp_path, data, architecture):
    """What a model makes of its weights and keeps while nothing trains must not outlive a step: validated
    twice, or only once at the end.
    """
    small = ("train.steps=4", "train.optimizer=adamw", "train.lr=0.05", "train.save_every=9")
    often = train(tiny(architecture, *small, "train.eval_every=2"), tmp_path / "often", [data], device="cpu")
    once = train(tiny(architecture, *small, "train.eval_every=4"), tmp_path / "once", [data], device="cpu")
    assert often.loss == once.loss and often.validation == once.validation


def test_micro_batches_give_the_same_gradients(tmp_path, data):
    whole, pieces = ([], [])
    for sizes, recipe in ((whole, tiny("v2")), (pieces, tiny("v2", "train.micro_batch=1"))):
        with locked(tmp_path / f"{len(sizes)}{recipe.train.micro_batch}") as run:
            trainer = Trainer(recipe, run, [data], torch.device("cpu"), Reporter())
            loss, norm = micro_batches.gradients(trainer.learner, trainer.batching, trainer.step)
            sizes += [loss, norm, *(p.grad for p in trainer.learner.model.parameters() if p.grad is not None)]
    assert len(whole) == len(pieces)
    for one, two in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-4, atol=1e-6)


def test_an_existing_run_is_never_overwritten(tmp_path, data):
    recipe = tiny("dense", "train.steps=2")
    train(recipe, tmp_path / "run", [data], device="cpu")
    with pytest.raises(UserError, match=r"exists; continue it with --resume auto, or choose another --out"):
        train(recipe, tmp_path / "run", [data], device="cpu")
    with pytest.raises(UserError, match=r"trained with model\.mlp = 512, the recipe asks for 99"):
        train(
            tiny("dense", "train.steps=4", "model.mlp=99"),
            tmp_path / "run",
            [data],
            resume="auto",
            device="cpu",
        )
    with pytest.raises(UserError, match=r"model\.architecture = dense, the recipe asks for v2"):
        train(tiny("v2"), tmp_path / "run", [data], resume="auto", device="cpu")
    with pytest.raises(UserError, match=r"train\.lr"):
        train(tiny("dense", "train.lr=1"), tmp_path / "run", [data], resume="auto", device="cpu")
    assert train(tiny("dense", "train.steps=4"), tmp_path / "run", resume="auto", device="cpu").step == 4
    assert (
        train(tiny("dense", "train.steps=4"), tmp_path / "run", resume="auto", device="cpu").loss is None
    ), "no step left"


def test_a_given_checkpoint_is_branched_off_elsewhere(tmp_path, data):
    recipe = tiny("dense")
    first = train(recipe, tmp_path / "run", [data], device="cpu")
    tenth = tmp_path / "run/checkpoints/step-0000010"
    with pytest.raises(UserError, match=r"has continued to step-0000020; start a branch"):
        train(recipe, tmp_path / "run", resume=str(tenth), device="cpu")
    branch = train(recipe, tmp_path / "branch", resume=str(tenth), device="cpu")
    assert history(tmp_path / "branch") == history(tmp_path / "run")
    assert same_tensors(
        Path(first.checkpoint) / "model.safetensors", Path(branch.checkpoint) / "model.safetensors"
    )
    with pytest.raises(UserError, match="is another run than"):
        train(recipe, tmp_path / "branch", resume=str(tenth), device="cpu")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_set_aside_and_nothing_wrong_is_loaded(tmp_path, data, damage):
    recipe = tiny("dense", "train.steps=8", "train.save_every=4", "train.eval_every=8")
    whole = train(recipe, tmp_path / "whole", [data], device="cpu")
    done = train(recipe, tmp_path / "run", [data], device="cpu", reporter=StopAt(6))
    path = Path(done.checkpoint) / "optimizer.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] if damage == "cut" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(Failure, match=r"optimizer\.safetensors is damaged.*like .*step-0000004"):
        train(recipe, tmp_path / "run", resume=done.checkpoint, device="cpu")
    listener = StopAt(-1)
    again = train(recipe, tmp_path / "run", resume="auto", reporter=listener, device="cpu")
    assert any("kept as" in note for note in listener.notes) and any(
        "after step 4" in note for note in listener.notes
    )
    assert same_tensors(
        Path(whole.checkpoint) / "optimizer.safetensors", Path(again.checkpoint) / "optimizer.safetensors"
    )
    assert (tmp_path / "run/checkpoints/damaged-step-0000006").is_dir() and history(
        tmp_path / "whole"
    ) == history(tmp_path / "run")
    for folder in listing.list_checkpoints(tmp_path / "run"):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(Failure, match=r"every checkpoint in .* is damaged"):
        train(recipe, tmp_path / "run", resume="auto", device="cpu")


def test_two_writers_are_one_too_many(tmp_path, data):
    with locked(tmp_path / "run"), pytest.raises(UserError, match="another process is training"):
        train(tiny(), tmp_path / "run", [data], device="cpu")
    assert not (tmp_path / "run").exists(), "nothing is left of a run that never began"


def test_the_best_checkpoint_outlives_the_newest_three(tmp_path, data):
    recipe = tiny(
        "dense",
        "train.steps=12",
        "train.save_every=2",
        "train.eval_every=3",
        "train.lr=3.0",
        "train.clip=1e9",
        "train.final_lr=1",
    )
    result = train(recipe, tmp_path / "run", [data], device="cpu")
    kept = [int(path.name[5:]) for path in listing.list_checkpoints(tmp_path / "run")]
    best = json.loads((tmp_path / "run/best.json").read_text())
    assert best["step"] == result.best["step"] < 8, "this rate makes the model worse and worse"
    assert kept[-1] == 12 and best["step"] in kept and len(kept) == 4
    assert (tmp_path / "run" / best["checkpoint"]).is_dir()


def test_unprepared_data_name_the_command(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/korean does not exist.*braingpt data prepare korean"):
        train(tiny("dense", "data.folders=[data/korean]"), "runs/x", device="cpu")
    with pytest.raises(UserError, match=r"vocabulary of 16,448 .* one of 999"):
        train(tiny("dense", "model.vocab=999"), "runs/x", [data], device="cpu")
    with pytest.raises(UserError, match="no data to train on"):
        train(tiny("dense", "data.folders=[]"), "runs/x", device="cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("x")
    with pytest.raises(UserError, match="files that are not a run's"):
        train(tiny(), "mine", [data], device="cpu")
    assert not Path("runs/x").exists() and [p.name for p in Path("mine").iterdir()] == ["letter.txt"]


def test_changed_data_are_mentioned(tmp_path, data):
    from tests.tiny_runs import prepared

    train(tiny("dense", "train.steps=2"), tmp_path / "run", [data], device="cpu")
    other = prepared(tmp_path / "sample", count=50)
    listener = StopAt(-1)
    train(
        tiny("dense", "train.steps=4"),
        tmp_path / "run",
        [other],
        resume="auto",
        reporter=listener,
        device="cpu",
    )
    assert any("data differ" in note for note in listener.notes)


def test_bfloat16_on_a_cpu_is_possible_and_warned_of(tmp_path, data):
    listener = StopAt(-1)
    result = train(
        tiny("dense", "train.steps=1", "train.dtype=bfloat16"),
        tmp_path / "run",
        [data],
        reporter=listener,
        device="cpu",
    )
    assert result.loss == pytest.approx(math.log(16448), abs=0.3) and any(
        "bfloat16 is slow" in note for note in listener.notes
    )
    assert load(tmp_path / "run")[0].embedding.weight.dtype == torch.float32


def test_a_run_that_resets_at_documents_resumes_bit_for_bit_and_differs_from_one_that_does_not(
    data, tmp_path
):
    recipe = tiny("v2", "train.steps=4", "data.reset_at_documents=true", "train.micro_batch=2")
    whole = train(recipe, tmp_path / "whole", [data])
    train(
        tiny("v2", "train.steps=2", "data.reset_at_documents=true", "train.micro_batch=2"),
        tmp_path / "parts",
        [data],
    )
    parts = train(recipe, tmp_path / "parts", [data], resume="auto")
    assert parts.loss == whole.loss and parts.validation["loss"] == whole.validation["loss"]
    plain = train(tiny("v2", "train.steps=4", "train.micro_batch=2"), tmp_path / "plain", [data])
    assert plain.loss != whole.loss


def test_a_scheduled_mixture_is_laid_over_the_steps(data, tmp_path):
    schedule = "data.mixture=[{until: 0.5, mixture: {ko: 1}}, {mixture: {en: 1}}]"
    seen = []
    original = micro_batches.gradients

    def spying(learner, batching, step):
        seen.append(set(batching.loader.batches.batch(step).language))
        return original(learner, batching, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_batches, "gradients", spying)
        train(tiny("dense", "train.steps=4", schedule), tmp_path / "run", [data])
    assert seen == [{"ko"}, {"ko"}, {"en"}, {"en"}]
    with pytest.raises(UserError, match=r"train\.steps = 4"):
        train(tiny("dense", "train.steps=8", schedule), tmp_path / "run", [data], resume="auto")
