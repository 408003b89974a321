import json
import math
from dataclasses import replace

import pytest
import torch

from braingpt.bench import clock, limits, runner
from braingpt.bench.contender import Contender, bench_recipe
from braingpt.bench.peak_memory import training_memory
from braingpt.bench.report.page import architectures_page
from braingpt.bench.runner import run_bench
from braingpt.bench.settings import resolve_settings
from braingpt.device.device import pick_device
from braingpt.errors import UserError
from braingpt.train.loop import train
from braingpt.train.run.folder import read_metrics
from braingpt.train.stability import Lost
from braingpt.utils.hashed_json import hashed
from tests.frozen.keys import assert_keys
from tests.tiny_runs import prepared

SHORT = {
    "steps": 6,
    "context": 32,
    "batch": 2,
    "threads": 1,
    "device": "cpu",
    "rounds": 2,
    "contexts": (20, 48),
    "batches": (1, 2),
    "new_tokens": 3,
}
SHORT |= {"windows": 2, "seeds": 2, "minutes": 0.01}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Little memory to write for the machine's limits, few facts to ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(clock.COLD_BYTES, "cpu", 1 << 20)
        patch.setitem(limits.BUFFER_BYTES, "cpu", 4 << 20)
        patch.setattr("braingpt.bench.few_shot.FACTS_PER_LANGUAGE", 2)
        patch.setattr("braingpt.bench.few_shot.REPEATED", 16)
        patch.setattr("braingpt.bench.few_shot.ROWS", 4)
        patch.setattr("braingpt.episodic.calibrate.TAUGHT", 16)
        patch.setattr("braingpt.episodic.calibrate.FOREIGN", 32)
        yield


KEYS = (
    "in_context_gain",
    "repetition",
    "facts_never_told",
    "facts_in_context",
    "facts_in_memory",
    "facts_in_memory_behind",
)


def began(folder, tmp_path, monkeypatch):
    """A folder as an interruption after training for equal tokens leaves it; later stages are short."""
    found = json.loads((folder / "bench.json").read_text())
    for later in ("time", "generation", "few_shot", "views", "claims", "sha256"):
        del found[later]
    (tmp_path / "bench.json").write_text(json.dumps(hashed(found)))
    (tmp_path / "models").symlink_to(folder / "models")
    monkeypatch.setattr(runner, "few_shot", lambda *_: dict.fromkeys(KEYS, 0.5))
    return tmp_path


@pytest.fixture(scope="module")
def asked(data):
    return resolve_settings(["v2", "dense"], "nano", [str(data)], **SHORT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def report(asked, folder):
    """Only one contender's memory is measured, which takes a process of its own."""
    seen = []

    def memory(recipe, *more):
        return training_memory(recipe, *more) if recipe.name == "nano-dense" else 10**8

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "training_memory", memory)
        report = run_bench(asked, lambda share, what: seen.append(share), folder)
    assert min(seen) >= 0 and max(seen) <= 1 and seen[-1] > 0.9
    return report


def test_every_figure_is_measured(report):
    assert list(report["contenders"]) == ["v2", "dense"] and not report["failed"]
    assert_keys(
        "bench compare",
        {key: value for key, value in json.loads(json.dumps(report)).items() if key != "machine"},
    )
    total = report["contenders"]["dense"]["parameters_total"]
    # float32 weights, gradients and the optimizer's two moments, and not a gigabyte of somebody else's.
    assert 16 * total < report["memory"]["dense"] < 16 * total + 400e6
    for name in report["contenders"]:
        for part in ("forward", "backward", "step"):
            series = report["speed"][name][part]
            assert len(series["rounds"]) == 2 and 0 < series["min"] <= series["median"] <= series["max"]
        runs = report["tokens"]["runs"][name]
        assert [run["seed"] for run in runs] == [0, 1] and runs[0]["curve"]["loss"] != runs[1]["curve"][
            "loss"
        ]
        curve = runs[0]["curve"]
        assert (
            len(curve["loss"]) == 6
            and abs(curve["loss"][0] - math.log(16_448)) < 0.5
            and curve["tokens"][-1] == 6 * 2 * 32
        )
        assert curve["seconds"] == sorted(curve["seconds"]) and all(norm > 0 for norm in curve["grad_norm"])
        last = runs[0]["validations"][-1]
        assert (
            (last["tokens"], last["scored_tokens"]) == (6 * 64, 2 * 2 * 32)
            and list(last["by_language"]) == ["ko", "en"]
            and last["bits_per_byte"] > 0
        )
        assert (
            0 <= report["few_shot"][name]["facts_in_memory"] <= 1
            and report["few_shot"][name]["in_context_gain"] is not None
        )
    points = {(point["context"], point["rows"]): point["results"] for point in report["generation"]}
    assert list(points) == [(20, 1), (20, 2), (48, 1), (48, 2)]
    # Keys and values of three layers; the last token is not read.
    assert points[20, 1]["dense"]["state_bytes"] == 3 * 2 * 4 * 128 * 22
    assert points[20, 2]["dense"]["state_bytes"] == points[20, 1]["dense"]["state_bytes"]
    assert (
        points[48, 1]["dense"]["share_of_bandwidth"] > 0
        and points[48, 2]["dense"]["share_of_bandwidth"] is None
    )
    assert points[20, 1]["v2"]["over"] == "v2" and points[20, 1]["v2"]["speed_over"]["rounds"] == [1.0, 1.0]
    assert (
        report["machine"]["threads"] == 1
        and report["precision"] == "float32"
        and report["limits"]["flops"] > 0
    )
    json.dumps(report, allow_nan=False)


def test_equal_time_is_each_ones_own_clock(report):
    seconds = report["time"]["seconds"]
    assert seconds == pytest.approx(0.6) and [run["seed"] for run in report["time"]["runs"]["v2"]] == [0, 1]
    for run in (run for runs in report["time"]["runs"].values() for run in runs):
        step = max(
            b - a for a, b in zip([0.0, *run["curve"]["seconds"]], run["curve"]["seconds"], strict=False)
        )
        assert seconds <= run["seconds"] < seconds + step + 1e-6 and len(run["validations"]) == 5


def test_a_learning_rate_that_follows_the_clock_ends_where_the_schedule_does(data, tmp_path):
    contender = Contender(bench_recipe("nano", "dense", 50, 32, 2, [str(data)]), tmp_path, pick_device("cpu"))
    contender.trainer.limit = 10.0
    rates = []
    for contender.trainer.seconds in (1.5, 5.0, 9.999):
        rates.append(contender.trainer.rate())
    assert rates[0] > rates[1] > rates[2] and rates[2] == pytest.approx(
        contender.recipe.train.lr * contender.recipe.train.final_lr, rel=1e-2
    )


def test_it_trains_as_the_trainer_does(report, data, tmp_path):
    """The losses are those of `braingpt train` with the same recipe: same batches, same optimizer, same
    schedule.
    """
    recipe = bench_recipe("nano", "v2", steps=6, context=32, batch=2, folders=[str(data)])
    train(recipe, tmp_path / "run", device="cpu")
    losses = [record["loss"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert losses == pytest.approx(report["tokens"]["runs"]["v2"][0]["curve"]["loss"], rel=1e-4)


def test_what_is_there_is_not_measured_again(report, asked, folder, monkeypatch):
    def never(*_):
        raise AssertionError("measured again")

    for stage in (
        "training_memory",
        "training_speed",
        "equal_tokens",
        "equal_time",
        "generation",
        "few_shot",
        "limits",
    ):
        monkeypatch.setattr(runner, stage, never)
    assert run_bench(asked, out=folder) == json.loads(json.dumps(report))
    with pytest.raises(
        UserError, match=r"holds a benchmark with another setting \(rounds: 2\); name another --out"
    ):
        run_bench(replace(asked, rounds=3), out=folder)


def test_an_interrupted_run_goes_on_behind_its_last_stage(report, asked, folder, tmp_path, monkeypatch):
    began(folder, tmp_path, monkeypatch)

    def interrupted(contenders, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "generation", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_bench(asked, out=tmp_path)
    half = json.loads((tmp_path / "bench.json").read_text())
    assert half["time"]["runs"]["v2"] and "generation" not in half
    for stage in ("training_memory", "training_speed", "equal_tokens", "equal_time"):
        monkeypatch.setattr(runner, stage, interrupted)
    whole = run_bench(asked, out=tmp_path)
    assert whole["time"] == half["time"] and len(whole["generation"]) == 4 and whole["claims"]


def test_who_fails_is_left_out_and_told(report, asked, folder, tmp_path, monkeypatch):
    began(folder, tmp_path, monkeypatch)
    warm = Contender.warm

    def failing(contender):
        if contender.recipe.name == "nano-dense":
            raise RuntimeError("no such\nkernel")
        warm(contender)

    monkeypatch.setattr(Contender, "warm", failing)
    whole = run_bench(asked, out=tmp_path)
    assert whole["failed"] == {"dense": {"stage": "time", "reason": "RuntimeError: no such kernel"}}
    assert list(whole["time"]["runs"]) == ["v2"] and list(whole["generation"][0]["results"]) == ["v2"]
    assert "fell out in time" in architectures_page(whole)


def test_a_lost_run_stops_and_says_so(data, tmp_path, monkeypatch):
    contender = Contender(bench_recipe("nano", "dense", 9, 32, 2, [str(data)]), tmp_path, pick_device("cpu"))
    assert contender.train(1) > 0
    monkeypatch.setattr(
        contender.trainer.guard, "check", lambda step: (_ for _ in ()).throw(Lost("no way back"))
    )
    assert contender.train(2) is None and contender.train(2) is None
    contender.train_until(99.0, 99.0)
    assert contender.lost == "no way back" and len(contender.losses) == 2


def test_warming_changes_nothing(data, tmp_path):
    recipe = bench_recipe("nano", "v2", 4, 32, 2, [str(data)])
    cold, warm = (Contender(recipe, tmp_path / name, pick_device("cpu")) for name in ("cold", "warm"))
    warm.warm()
    assert all(
        torch.equal(a, b)
        for a, b in zip(cold.model.state_dict().values(), warm.model.state_dict().values(), strict=True)
    )
    cold.train(3), warm.train(3)
    assert cold.losses == warm.losses


@pytest.mark.slow
def test_more_windows_take_more_memory(report, data):
    large = training_memory(bench_recipe("nano", "dense", 1, 128, 16, [str(data)]), "cpu", threads=1)
    # Three layers keep at least four values of a token's width, in float32.
    kept = 3 * 4 * (16 * 128 - 2 * 32) * 128 * 4
    assert large - report["memory"]["dense"] > kept


def test_contenders_continue_the_same_real_tokens(data, tmp_path):
    contenders = [
        Contender(bench_recipe("nano", name, 2, 32, 2, [str(data)]), tmp_path / name, pick_device("cpu"))
        for name in ("dense", "v2")
    ]
    one, other = (contender.prompts(3, 24, number=1) for contender in contenders)
    assert one.shape == (3, 24) and torch.equal(one, other) and len(one.unique(dim=0)) == 3
    shards = contenders[0].trainer.shards
    assert one[0].tolist() == shards.window("validation", "ko", 3, 24).tolist()
    long = contenders[0].prompts(1, 10**5)
    whole = max(shards.tokens("train", language) for language in shards.languages("train"))
    # Repeated.
    assert long.shape == (1, 10**5) and torch.equal(long[0, :500], long[0, whole : whole + 500])


def test_settings_left_out_come_from_the_recipe_and_fit_a_processor():
    asked = resolve_settings(["v1", "v2", "dense-active"], "small", device="cpu")
    assert asked.context == 1024 and asked.batch == 1 and asked.steps == 10
    assert asked.folders == ("data/korean", "data/simple")
    assert resolve_settings(["v1"], "nano", tokens=10_000, batch=8, device="cpu").steps == 10


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["v3"],), {}, "unknown architecture 'v3' of size nano; did you mean 'v"),
        ((["v1", "v1"],), {}, "different architectures"),
        ((["v1"], "hugo"), {}, "no recipes of size 'hugo'; known: .*small"),
        ((["v1"], "nano"), {"steps": 0}, "--steps 0 gives fewer than 2"),
        ((["v1"], "nano"), {"steps": 1}, "--steps 1 gives fewer than 2"),
        ((["v1"], "nano"), {"tokens": 10}, "--tokens 10 gives fewer than 2"),
        ((["v1"], "nano"), {"steps": 5, "tokens": 10}, "give one of them"),
        (
            (["v1"], "nano"),
            {"changes": ("model.layers=2",)},
            "--set model.layers=2: give a train or data setting",
        ),
        ((["v1"], "nano"), {"changes": ("train.seed=2",)}, "no option of its own"),
        ((["v1"], "nano"), {"changes": ("train.lrr=2",)}, "unknown recipe key 'train.lrr'"),
        ((["v1"], "nano"), {"peers": ("gpt2",)}, "unknown peer 'gpt2'; did you mean 'gpt2-hf'"),
    ],
)
def test_wrong_settings_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve_settings(*arguments, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_data_that_are_not_prepared_name_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="braingpt data prepare sample"):
        run_bench(resolve_settings(["v1", "v2"], "nano", steps=2, device="cpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"contexts": (10**9,)}, "--contexts"), ({"context": 10**7}, "use a smaller --batch or --context")],
)
def test_what_cannot_fit_into_memory_is_told_before_anything_is_measured(data, options, message):
    with pytest.raises(UserError, match=message):
        run_bench(
            resolve_settings(["dense"], "nano", [str(data)], steps=2, device="cpu", **{"batch": 1} | options)
        )
