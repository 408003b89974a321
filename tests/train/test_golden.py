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
    "dense": [9.79716, 9.09337, 8.26908, 7.34048, 6.92134, 6.89186],
    "v1": [9.79716, 9.52848, 8.90633, 7.99411, 7.53485, 7.57402],
    "v2": [9.79716, 9.40469, 8.53288, 7.53512, 7.12722, 7.14768],
}


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_losses_are_those_written_down(tmp_path, data, architecture):
    train(load_recipe(f"nano-{architecture}", SETTINGS), tmp_path / "run", [data], device="cpu")
    *steps, validation = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert [*steps, validation] == pytest.approx(LOSSES[architecture], rel=1e-3)
