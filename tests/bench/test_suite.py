import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.bench.contender import Contender, bench_recipe, spikes
from braingpt.bench.memory import training_memory
from braingpt.bench.suite import matching, portions, run_bench, settle
from braingpt.errors import UserError
from braingpt.train.loop import train
from braingpt.train.run_folder import read_metrics
from braingpt.train.setup import pick_device
from tests.train.conftest import prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="module")
def report(data):
    seen = []
    small = {"steps": 4, "context": 32, "batch": 2, "threads": 1, "device": "cpu", "rounds": 2, "prompt_tokens": 20, "new_tokens": 4}
    report = run_bench(settle(["v2", "dense"], "nano", [str(data)], windows=2, **small), lambda share, what: seen.append((share, what)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] < 1
    return report


def test_every_figure_is_measured(report):
    assert list(report["results"]) == ["v2", "dense"]
    for name, figures in report["results"].items():
        for key in ("training_tokens_per_second", "generation_tokens_per_second", "first_token_seconds"):
            series = figures[key]
            assert len(series["rounds"]) == 2 and 0 < series["min"] <= series["median"] <= series["max"]
        # float32 weights, gradients and the optimizer's two moments, and not a gigabyte of somebody else's
        assert 16 * figures["parameters_total"] < figures["training_memory_bytes"] < 16 * figures["parameters_total"] + 400e6, name
        assert len(figures["train_losses"]) == 4 and abs(figures["train_losses"][0] - math.log(16_448)) < 0.5
        assert figures["validation"]["tokens"] == 2 * 2 * 32 and figures["validation"]["bits_per_byte"] > 0
        assert list(figures["validation"]["by_language"]) == ["ko", "en"]
    dense, v2 = report["results"]["dense"], report["results"]["v2"]
    assert dense["state_bytes"] == 3 * 2 * 4 * 128 * 23  # keys and values of three layers; the last token is not read
    assert v2["state_bytes"] != dense["state_bytes"] and v2["parameters_active"] < dense["parameters_active"]
    assert report["matching"]["tokens"] == 4 * 2 * 32 and report["matching"]["equal_parameters"]
    assert report["machine"]["threads"] == 1 and report["machine"]["torch"] and report["precision"] == "float32"
    json.dumps(report, allow_nan=False)


def test_it_trains_as_the_trainer_does(report, data, tmp_path):
    """The losses are those of `braingpt train` with the same recipe: same batches, same optimizer, same schedule."""
    recipe = bench_recipe("nano", "v2", steps=4, context=32, batch=2, folders=[str(data)])
    train(recipe, tmp_path / "run", device="cpu")
    losses = [record["loss"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert losses == pytest.approx(report["results"]["v2"]["train_losses"], rel=1e-4)


def test_more_windows_take_more_memory(report, data):
    large = training_memory(bench_recipe("nano", "dense", 1, 128, 16, [str(data)]), "cpu", threads=1)
    kept = 3 * 4 * (16 * 128 - 2 * 32) * 128 * 4  # three layers keep at least four values of a token's width, in float32
    assert large - report["results"]["dense"]["training_memory_bytes"] > kept


def test_contenders_continue_the_same_real_tokens(data, tmp_path):
    contenders = [
        Contender(bench_recipe("nano", name, 2, 32, 2, [str(data)]), tmp_path / name, pick_device("cpu")) for name in ("dense", "v2")
    ]
    one, other = ([contender.prompt(24, number) for number in range(3)] for contender in contenders)
    assert one == other and len({tuple(prompt) for prompt in one}) == 3
    shards = contenders[0].trainer.shards
    assert one[1] == shards.window("validation", "ko", 1, 24).tolist()
    with pytest.raises(UserError, match="takes fewer"):
        contenders[0].prompt(10**6, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 500), st.integers(1, 12))
def test_portions_hold_every_step_and_differ_by_one(steps, rounds):
    warm, *rest = portions(steps, rounds)
    assert warm + sum(rest) == steps and warm >= 1 and 1 <= len(rest) <= rounds
    assert min(rest) >= 1 and max(rest) - min(rest) <= 1


def test_spikes_are_jumps_not_noise():
    calm = [5 + 0.05 * (-1) ** step - 0.01 * step for step in range(60)]
    assert spikes(calm) == 0
    assert spikes([*calm[:30], 9.0, *calm[30:]]) == 1
    assert spikes([*calm[:30], math.nan, *calm[30:]]) == 1
    assert spikes([10.0, 4.0, 11.0]) == 0  # too early to say


def test_matching_says_what_is_equal():
    asked = settle(["v1"], "nano", ["x"], steps=10, context=8, batch=4, device="cpu")
    assert "equal total parameters (within 1.0 %)" in matching(asked, [1000, 1010])["words"]
    apart = matching(asked, [1000, 1500])
    assert apart["words"] == "equal tokens (320, the same batches), total parameters differ by 50 %" and not apart["equal_parameters"]


def test_settings_left_out_come_from_the_recipe_and_fit_a_processor():
    asked = settle(["v1", "v2"], "small", device="cpu")
    assert asked.context == 1024 and asked.batch == 2 and asked.steps == 10
    assert asked.folders == ("data/korean", "data/simple")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["v3"],), "unknown architecture 'v3'"),
        ((["v1", "v1"],), "different architectures"),
        ((["v1"], "hugo"), "no recipe hugo-v1"),
        ((["v1"], "nano", (), 1), "at least 2"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    *first, steps = arguments if len(arguments) == 4 else (*arguments, None)
    with pytest.raises(UserError, match=message):
        settle(*first, steps=steps, device="cpu")


def test_data_that_are_not_prepared_name_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="braingpt data prepare sample"):
        run_bench(settle(["v1", "v2"], "nano", steps=2, device="cpu"))
