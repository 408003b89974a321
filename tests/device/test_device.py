import signal
from functools import partial

import pytest
import torch

from braingpt.device import compile, cpu, device
from braingpt.errors import Failure, UserError
from braingpt.model.config import DenseConfig
from braingpt.model.lm import build
from braingpt.train import learner
from braingpt.train.loop import train
from braingpt.train.run.signals import Stopped, stop_on_signals
from tests.tiny_runs import tiny


def test_devices():
    assert device.pick_device("cpu") == torch.device("cpu")
    assert device.pick_device().type == device.pick_device("auto").type
    for name in ("tpu", "mps", "meta", "cuda:99"):
        with pytest.raises(UserError):
            device.pick_device(name)


def test_precision_on_a_cpu():
    assert device.autocast_dtype("auto", torch.device("cpu")) is None
    assert device.autocast_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_denormals_are_flushed_inside_only():
    tiny_number = torch.tensor(1e-39)
    before = float(tiny_number * 1)
    with cpu.denormals_flushed():
        assert float(tiny_number * 1) == 0
    assert float(tiny_number * 1) == before


def test_compile_needs_a_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compile.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        compile.compile_training(None, None, torch.device("cpu"))


@pytest.mark.parametrize(
    ("architecture", "recompute"),
    [
        ("dense", "false"),
        pytest.param("v1", "false", marks=pytest.mark.slow),
        pytest.param("v2", "false", marks=pytest.mark.slow),
        ("v2", "true"),
    ],
)
def test_compiled_training_equals_plain_training(tmp_path, data, monkeypatch, architecture, recompute):
    """Traced, but not translated to C++, which takes a minute; a run with --compile does that too."""
    monkeypatch.setattr(compile.shutil, "which", lambda name: name)
    monkeypatch.setattr(compile, "compile_training", partial(compile.compile_training, backend="aot_eager"))
    monkeypatch.setattr(learner, "compile_training", compile.compile_training)
    torch._dynamo.reset()
    small = (
        "train.steps=3",
        "model.layers=2",
        "train.eval_windows=1",
        *(("model.attention.layers=[1]",) if architecture == "v2" else ()),
    )
    plain = train(tiny(architecture, *small), tmp_path / "plain", [data], device="cpu")
    torch._dynamo.utils.counters.clear()
    traced = train(
        tiny(architecture, *small, "train.compile=true", f"train.recompute={recompute}"),
        tmp_path / "traced",
        [data],
        device="cpu",
    )
    assert traced.loss == pytest.approx(plain.loss, rel=1e-5)
    breaks = torch._dynamo.utils.counters["graph_break"]
    # nothing falls out that was not meant to: what `uncompiled` marks, and the attention of the blocks
    meant = ("torch/_compile.py", "`torch.compiler.disable()`d")
    assert all(any(words in reason for words in meant) for reason in breaks), breaks


def test_a_model_that_does_not_compile_is_one_line(monkeypatch):
    def refuse(graph, inputs):
        raise RuntimeError("no such instruction\nand much more")

    monkeypatch.setattr(compile.shutil, "which", lambda name: name)
    model = build(DenseConfig(layers=1, hidden=16, heads=2, vocab=20, mlp=16))
    forward = compile.compile_training(model, model, torch.device("cpu"), backend=refuse)
    with pytest.raises(Failure, match="train without --compile") as caught:
        forward(torch.ones(1, 2, dtype=torch.long))
    assert "\n" not in str(caught.value)


def test_the_second_signal_stops_at_once_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped), stop.droppable():
            pass
    with stop_on_signals() as stop, pytest.raises(Stopped), stop.droppable():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_gpu_named_by_number_becomes_the_current_one(monkeypatch):
    became = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", became.append)
    assert device.pick_device("cuda:1") == torch.device("cuda:1") and became == [torch.device("cuda:1")]
    assert device.pick_device("cuda") == torch.device("cuda") and len(became) == 1
    with pytest.raises(UserError, match="2 GPU"):
        device.pick_device("cuda:2")
