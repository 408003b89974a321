"""Five steps from a fixed seed over fixed text: any change to model, batches, optimizer or schedule shows here first.

A change that means to alter the numbers alters these too, and says why.
"""

import pytest

from braingpt.recipes import load_recipe
from braingpt.train.loop import train
from braingpt.train.run_folder import read_metrics

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
    "dense": [9.79716, 8.89488, 7.15236, 4.85990, 4.08160, 4.46300],
    "v1": [9.79716, 8.96465, 7.42087, 5.40417, 4.69818, 5.07811],
    "v2": [9.79716, 8.94873, 7.35116, 5.26790, 4.54673, 4.92707],
}


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_losses_are_those_written_down(tmp_path, data, architecture):
    train(load_recipe(f"nano-{architecture}", SETTINGS), tmp_path / "run", [data], device="cpu")
    *steps, validation = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert [*steps, validation] == pytest.approx(LOSSES[architecture], rel=1e-3)
