"""Whatever number a recipe is given: a plan, or one line that says what is needed, available and fitting."""

import json
import os
import subprocess
import sys
import time
import types
from typing import Union, get_args, get_origin

import pytest
import torch
import torch._dynamo  # arithmetic on the meta device imports it, which is not what is timed
from pydantic import BaseModel

from braingpt.cli.console import guarded
from braingpt.cli.main import app
from braingpt.device.free_memory import Available
from braingpt.errors import UserError
from braingpt.model.config import DenseConfig, V1Config, V2Config
from braingpt.model.lm import build
from braingpt.model.outline import outline
from braingpt.recipes import load_recipe
from braingpt.recipes.schema import TrainConfig
from braingpt.train.loop import train
from braingpt.train.plan.limits import fitting, why_too_large
from braingpt.train.plan.plan import build_plan
from tests.tiny_runs import tiny

CPU = torch.device("cpu")
ABSURD = (0, -1, 3, 99_999, 1 << 20, 1 << 39, 10**30)
# Seconds of computing, torch and its compiler being imported; the clock on the wall also counts what other
# programs take.
SECONDS = 2.0
GB = 10**9


def numeric_fields(settings: type[BaseModel], prefix: str):
    """Dotted keys of all settings that take a number."""
    for name, field in settings.model_fields.items():
        key, kinds = f"{prefix}.{name}", [field.annotation]
        if get_origin(field.annotation) in (Union, types.UnionType):
            kinds = list(get_args(field.annotation))
        if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
            yield from numeric_fields(field.annotation, key)
        elif any(kind in (int, float) for kind in kinds):
            yield key


OF_V2 = {*numeric_fields(V2Config, "model")}
FIELDS = [
    (architecture, key)
    for architecture, model in (("dense", DenseConfig), ("v1", V1Config), ("v2", V2Config))
    for key in [
        # What v2 has too is tried there alone.
        *(key for key in numeric_fields(model, "model") if model is V2Config or key not in OF_V2),
        *(numeric_fields(TrainConfig, "train") if model is V2Config else []),
    ]
]


def plan(capsys, *words: str) -> tuple[int, str, str, float]:
    """Exit code, output, errors and seconds of computing of `train --plan`."""
    began = time.process_time()
    code = guarded(lambda: app(["train", "--plan", "--device", "cpu", *words], standalone_mode=False))
    seconds = time.process_time() - began
    return code, *capsys.readouterr(), seconds


def test_the_table_knows_the_fields():
    assert len(FIELDS) > 45 and {("v2", "model.mamba.conv"), ("v2", "train.micro_batch")} <= {*FIELDS}


@pytest.mark.parametrize(("architecture", "key"), FIELDS)
def test_any_number_ends_in_a_plan_or_one_line(architecture, key, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # What is measured of a model that fits takes its own time.
    monkeypatch.setattr("braingpt.train.plan.plan.why_not_measured", lambda *rest: "not now")
    for value in ABSURD:
        code, out, error, seconds = plan(
            capsys, "--recipe", f"nano-{architecture}", "--set", f"{key}={value}"
        )
        assert seconds < SECONDS, (key, value)
        if code:
            assert code == 2 and error.count("\n") == 1 and "Error" not in error, (key, value, error)
        else:
            assert "parameters, total" in out and "data/sample does not exist" in out, (key, value, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
@pytest.mark.parametrize("layers", [1, 3, 7])
@pytest.mark.parametrize("hidden", [32, 96])
def test_an_outline_counts_what_the_model_has(architecture, layers, hidden):
    more = {
        "v2": ("model.attention.layers=[0]", "model.memory.layers=[]", "model.depth.share=1"),
        "v1": (),
        "dense": (),
    }[architecture]
    if architecture == "v2" and layers == 7:
        more = ("model.attention.layers=[1,4]", "model.memory.layers=[2]", "model.depth.share=0.8")
    config = tiny(architecture, f"model.hidden={hidden}", f"model.layers={layers}", *more).model
    shape, model = outline(config), build(config)
    assert shape.parameters_total() == model.parameters_total()
    assert shape.parameters_active() == model.parameters_active()
    assert shape.flops_per_token(64) == model.flops_per_token(64)
    assert shape.state_bytes(100) == model.state_bytes(100)
    assert shape.buffer_bytes() == sum(b.numel() * b.element_size() for b in model.buffers())
    saved = {id(t): t.numel() for t in model.state_dict(keep_vars=True).values()}
    assert sum(count * t.numel() for _, t, count in shape.tensors()) == sum(saved.values())


@pytest.mark.parametrize(
    ("architecture", "overrides", "needed", "fits"),
    [
        ("dense", ("model.hidden=16384", "model.layers=64", "model.heads=64"), "weights", "recipe that fits"),
        ("dense", ("model.hidden=4096", "model.layers=64"), "weights", "layers of this width would fit"),
        ("v2", ("model.layers=1024", "model.hidden=2048"), "weights", "layers of this width would fit"),
        (
            "v1",
            ("train.batch=1048576", "train.micro_batch=1048576"),
            "micro-batches of",
            "train.micro_batch=",
        ),
        ("dense", ("train.context=4194304",), "one window of", "train.context="),
        ("dense", ("train.batch=1048576", "train.context=65536"), "for its tokens alone", "train.batch="),
        ("v2", ("train.batch=1048576", "train.micro_batch=524288"), "micro-batches of", "train.micro_batch="),
    ],
)
def test_what_is_too_large_says_what_would_fit(
    architecture, overrides, needed, fits, tmp_path, data, monkeypatch
):
    room = Available(12 * GB, "free on this machine")
    monkeypatch.setattr("braingpt.train.plan.limits.available_memory", lambda device: room)

    def never(*rest, **others):
        raise AssertionError("nothing may be built")

    monkeypatch.setattr("braingpt.train.learner.build", never)
    monkeypatch.setattr("braingpt.train.plan.step_cost.build", never)
    recipe = load_recipe(f"nano-{architecture}", list(overrides))
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        train(recipe, tmp_path / "run", [data], device="cpu")
    assert time.process_time() - began < SECONDS
    message = str(caught.value)
    assert needed in message and fits in message and "12.0 GB are available (free on this machine)" in message
    assert not (tmp_path / "run").exists()
    # What is offered does fit.
    if offered := next((part for part in message.split() if part.startswith("train.")), None):
        key, value = offered.strip(",;").split("=")
        assert why_too_large(load_recipe(f"nano-{architecture}", [*overrides, f"{key}={value}"]), CPU) is None


def test_a_run_that_fits_is_not_refused():
    assert fitting(tiny("v2"), CPU) == tiny("v2") and why_too_large(load_recipe("tiny-v1"), CPU) is None


def test_weights_that_do_not_fit_are_not_built(monkeypatch):
    room = Available(10 * GB, "the container's limit (cgroup)")
    monkeypatch.setattr("braingpt.model.memory_limits.available_memory", lambda device: room)
    with pytest.raises(UserError, match=r"need .* of memory, 10.0 GB are available \(the container's limit"):
        build(load_recipe("nano-dense", ["model.hidden=8192", "model.layers=100"]))
    with torch.device("meta"):
        assert build(load_recipe("nano-dense", ["model.hidden=8192", "model.layers=2"]))


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(tmp_path, data, monkeypatch):
    recipe = tiny("dense", "train.keep=1000", "train.save_every=1", "train.steps=500")
    size = build_plan(recipe, None).checkpoint_bytes
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=100 * size))
    with pytest.raises(UserError, match=r"checkpoints take .* free; choose an --out on another disk"):
        train(recipe, tmp_path / "run", [data], device="cpu")
    train(tiny("dense", "train.keep=1000", "train.steps=1"), tmp_path / "short", [data], device="cpu")


def test_what_takes_too_long_to_measure_is_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def never(recipe, device):
        raise AssertionError("nothing is measured")

    monkeypatch.setattr("braingpt.train.plan.plan.measure_step_cost", never)
    words = ("--recipe", "nano-dense", "--set", "model.hidden=2048", "--set", "train.micro_batch=1")
    code, out, _, seconds = plan(capsys, *words)
    assert code == 0 and seconds < SECONDS
    assert "nothing was measured, because two layers take 2.3T floating-point operations" in out
    figures = {line.rpartition("  ")[0].strip(): line.split()[-2:] for line in out.splitlines()}
    assert (
        "-" not in figures["memory at the peak"] and "-" not in figures["time, without validation and saving"]
    )


@pytest.mark.parametrize("architecture", [pytest.param("dense", marks=pytest.mark.slow), "v2"])
def test_the_planned_memory_is_that_of_the_process(architecture, data, tmp_path):
    """Within three tenths of the resident memory that training reaches, short validations included."""
    words = ["--recipe", f"nano-{architecture}", "--data", str(data), "--device", "cpu", "--json"]
    words += ["--set", "train.steps=2", "--set", "train.context=256", "--set", "train.batch=8"]
    words += ["--set", "train.eval_windows=8"]
    found = []
    # Both in processes of their own: a plan counts what its process holds already.
    for more in (["--plan"], ["--out", str(tmp_path / "run")]):
        command = [sys.executable, "-P", "-m", "braingpt", "train", *words, *more]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        found.append(json.loads(done.stdout))
    planned, real = found[0]["resident_bytes"], found[1]["peak_memory_bytes"]
    assert 0.7 < planned / real < 1.3, (planned, real)
