import sys
import types

import pytest

from braingpt.errors import UserError
from braingpt.train.loop import train
from braingpt.train.run.loggers import Loggers
from tests.tiny_runs import tiny


def test_what_is_not_installed_is_named(tmp_path, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'braingpt\[log\]'"):
        Loggers(("wandb",), tmp_path, tiny())
    with pytest.raises(UserError, match=r"pip install 'braingpt\[log\]'"):
        train(tiny("dense", "train.loggers=[wandb]"), tmp_path / "run", [data], device="cpu")
    assert not (tmp_path / "run").exists(), "the same command works once it is installed"


def test_every_number_is_handed_on(tmp_path, data, monkeypatch):
    told, ended = [], []
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **settings: types.SimpleNamespace(
        log=lambda figures, step: told.append((step, figures)), finish=lambda: ended.append(settings["name"])
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    board = types.ModuleType("torch.utils.tensorboard")
    scalars = []
    board.SummaryWriter = lambda folder: types.SimpleNamespace(
        add_scalar=lambda name, value, step: scalars.append((name, value, step)),
        close=lambda: ended.append("board"),
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    result = train(
        tiny("dense", "train.steps=2", "train.eval_every=2", "train.loggers=[tensorboard, wandb]"),
        tmp_path / "run",
        [data],
        device="cpu",
    )
    assert [step for step, _ in told] == [1, 2, 2] and ended == ["board", "nano-dense"]
    assert told[1][1]["train/loss"] == result.loss and told[2][1]["validation/by_language/ko/loss"] > 0
    assert ("train/loss", result.loss, 2) in scalars and all(
        isinstance(value, float) for _, value, _ in scalars
    )
