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


def test_a_resumed_run_continues_the_run_of_the_service(tmp_path, data, monkeypatch):
    given = []
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **settings: (
        given.append(settings) or types.SimpleNamespace(log=lambda figures, step: None, finish=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)

    def go(name: str, steps: int, resume: str | None) -> dict:
        recipe = tiny("dense", f"train.steps={steps}", "train.loggers=[wandb]")
        train(recipe, tmp_path / name, [data], resume=resume, device="cpu")
        return given[-1]

    first, again = go("run", 1, None), go("run", 2, "auto")
    branch = go("branch", 3, str(tmp_path / "run"))
    assert first["id"] == again["id"] != branch["id"] and {one["resume"] for one in given} == {"allow"}
    (tmp_path / "run/wandb-id").write_bytes(b"\xff")
    assert go("run", 3, "auto")["id"] not in (first["id"], branch["id"]), "a damaged file is made again"


def test_the_service_itself_takes_the_id_of_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for _ in range(2):
        loggers = Loggers(("wandb",), tmp_path, tiny())
        ids.append(wandb.run.id)
        loggers.log({"kind": "train", "step": len(ids), "loss": 1.0})
        loggers.close()
    assert ids[0] == ids[1] == (tmp_path / "wandb-id").read_text().strip()
