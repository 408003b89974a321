"""AdamW with moments in 8 bits. Its steps are compiled by torchao; here they run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from braingpt.checkpoint import listing, sharded
from braingpt.errors import UserError
from braingpt.model.lm import build
from braingpt.optim.optimizer import build_optimizer, pack_state, unpack_state
from braingpt.train.loop import train
from braingpt.train.plan.plan import build_plan
from braingpt.train.run.folder import read_metrics
from tests.tiny_runs import tiny

EIGHT = (
    "train.optimizer=adamw8bit",
    "train.steps=6",
    "train.save_every=3",
    "train.eval_every=6",
    "train.warmup=1",
)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run)]


@pytest.fixture
def eager():
    pytest.importorskip("torchao")
    with torch.compiler.set_stance("force_eager"):
        yield


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    recipe = tiny("dense", *EIGHT)
    with pytest.raises(UserError, match=r"pip install 'braingpt\[lowbit\]'"):
        build_optimizer(build(recipe), recipe.train)


def test_a_start_prints_nothing_of_torchaos():
    pytest.importorskip("torchao")
    program = (
        "import logging, torch; from braingpt.optim.adamw8bit import adamw8bit; "
        "from braingpt.doctor import examine; list(examine()); "
        "adamw8bit(torch.device('cpu')); logging.warning('heard')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "WARNING:root:heard\n")


@pytest.mark.parametrize("architecture", ["v1", "v2"])
def test_it_learns_like_adamw_and_goes_on_exactly(tmp_path, data, eager, architecture):
    recipe = tiny(architecture, *EIGHT)
    train(recipe, tmp_path / "whole", [data], device="cpu")
    train(tiny(architecture, *EIGHT, "train.optimizer=adamw"), tmp_path / "adamw", [data], device="cpu")
    eight, full = losses(tmp_path / "whole"), losses(tmp_path / "adamw")
    assert eight == pytest.approx(full, rel=0.02) and eight != full
    run = tmp_path / "halves"
    train(tiny(architecture, *EIGHT), run, [data], device="cpu")
    listing.remove(run / "checkpoints" / "step-0000006")
    train(recipe, run, [data], resume="auto", device="cpu")
    first, second = (
        load_file(path / "checkpoints/step-0000006/optimizer.safetensors")
        for path in (tmp_path / "whole", run)
    )
    assert losses(run) == losses(tmp_path / "whole") and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_spread_moments_are_saved_in_full_and_rounded_again(tmp_path, data, eager):
    """Another number of processes has other blocks: what it goes on with is near, not equal."""
    spread = tiny("v2", *EIGHT, "train.parallel=fsdp")
    train(spread, tmp_path / "run", [data], device="cpu")
    whole = losses(tmp_path / "run")
    listing.remove(tmp_path / "run" / "checkpoints" / "step-0000006")
    shapes = sharded.shapes(tmp_path / "run/checkpoints/step-0000003/optimizer")
    assert not any("codes" in name for name in shapes) and any(
        name.startswith("exp_avg_sq.blocks") for name in shapes
    )
    train(spread, tmp_path / "run", [data], resume="auto", device="cpu")
    assert losses(tmp_path / "run")[:4] == whole[:4] and losses(tmp_path / "run") == pytest.approx(
        whole, rel=2e-3
    )


def test_moments_take_a_quarter_as_planned(eager):
    recipe = tiny("dense", *EIGHT, "model.hidden=128")
    model = build(recipe)
    optimizer = build_optimizer(model, recipe.train)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    taken = sum(
        t.numel() * t.element_size()
        for name, t in pack_state(model, optimizer).items()
        if not name.startswith("step.")
    )
    assert taken == build_plan(recipe, None).optimizer_bytes
    full = (
        build_plan(tiny("dense", "model.hidden=128", "train.optimizer=adamw"), None).optimizer_bytes
        - 8 * model.embedding.weight.numel()
    )
    assert taken - 8 * model.embedding.weight.numel() == pytest.approx(full / 4, rel=0.02)


def test_moments_change_between_8_and_32_bits(eager):
    recipe = tiny("dense", *EIGHT)
    model = build(recipe)
    small, large = (
        build_optimizer(model, tiny("dense", *EIGHT, *extra).train)
        for extra in ((), ("train.optimizer=adamw",))
    )
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    small.step()
    unpack_state(model, large, pack_state(model, small))
    full = pack_state(model, large)
    unpack_state(model, small, full)
    again = build_optimizer(model, tiny("dense", *EIGHT, "train.optimizer=adamw").train)
    unpack_state(model, again, pack_state(model, small))
    for name, value in pack_state(model, again).items():
        torch.testing.assert_close(value, full[name], rtol=0.02, atol=0.02 * float(full[name].abs().max()))
