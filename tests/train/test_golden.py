"""Five steps from a fixed seed over fixed text: any change to model, batches, optimizer or schedule shows
here first.

With the torch and the processor that recorded them, losses agree bit for bit; elsewhere to a thousandth.
A change that means to alter the numbers alters these too, and says why: python -m tests.frozen.record losses
"""

import pytest

from braingpt.recipes import load_recipe
from braingpt.train.loop import train
from braingpt.train.run.folder import read_metrics
from tests.frozen.calls import recorded
from tests.frozen.machine import this_machine

SETTINGS = [
    "train.batch=4",
    "train.lr=5e-3",
    "train.context=64",
    "train.steps=5",
    "train.warmup=2",
    "train.eval_every=5",
    "train.eval_windows=2",
]
LOSSES = {
    "dense": [9.74292, 8.79445, 7.21425, 4.76779, 3.97992, 4.42674],
    "v1": [9.74292, 8.86646, 7.49578, 5.31698, 4.56436, 5.01891],
    "v2": [9.74292, 8.85015, 7.42020, 5.17011, 4.40796, 4.85896],
}


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_losses_are_those_written_down(tmp_path, data, architecture):
    train(load_recipe(f"nano-{architecture}", SETTINGS), tmp_path / "run", [data], device="cpu")
    *steps, validation = [record["loss"] for record in read_metrics(tmp_path / "run")]
    losses = [*steps, validation]
    assert losses == pytest.approx(LOSSES[architecture], rel=1e-3)
    found = this_machine() | {"losses": [loss.hex() for loss in losses]}
    known = recorded("losses", architecture, found)
    if this_machine().items() <= known.items():
        assert found["losses"] == known["losses"]
