import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from braingpt.checkpoint.load import load
from braingpt.optim.weight_average import Average
from braingpt.train.loop import train
from tests.tiny_runs import tiny


@given(decay=st.floats(0.01, 0.9999), steps=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_it_is_the_mean_with_falling_weights_and_swaps_exactly(decay, steps):
    model = nn.Linear(3, 2, bias=False)
    generator = torch.Generator().manual_seed(steps)
    average = Average(model, decay)
    expected = model.weight.detach().double().clone()
    for number in range(1, steps + 1):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        average.update()
        kept = min(decay, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * model.weight.double()
    trained, version = model.weight.detach().clone(), model.weight._version
    with average.in_place():
        torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-4, atol=1e-5)
        assert model.weight._version > version, "what was made of the other weights is outdated"
    assert torch.equal(model.weight, trained)
    other = nn.Linear(3, 2, bias=False)
    again = Average(other, decay)
    with torch.no_grad():
        other.weight.copy_(average.values["weight"])
    again.restore({"weight": trained}, average.count)
    assert (
        torch.equal(other.weight, trained)
        and torch.equal(again.values["weight"], average.values["weight"])
        and again.count == steps
    )


def test_the_checkpoint_holds_the_average_and_training_goes_on_from_the_weights(tmp_path, data):
    small = ("train.steps=6", "train.eval_every=3", "train.optimizer=adamw")
    plain = train(tiny("dense", *small), tmp_path / "plain", [data], device="cpu")
    averaged = train(tiny("dense", *small, "train.average=0.9"), tmp_path / "averaged", [data], device="cpu")
    assert averaged.loss == plain.loss and averaged.validation["loss"] != plain.validation["loss"]
    folders = [tmp_path / name / "checkpoints/step-0000006" for name in ("plain", "averaged")]
    raw, shown = load_file(folders[0] / "model.safetensors"), load_file(folders[1] / "model.safetensors")
    trained = load_file(folders[1] / "optimizer.safetensors")
    assert all(
        torch.equal(raw[name], trained[f"trained.{name}"])
        for name, _ in load(folders[1])[0].named_parameters()
        if name in raw
    )
    assert not torch.equal(raw["embedding.weight"], shown["embedding.weight"])
    assert torch.equal(load(folders[1])[0].embedding.weight, shown["embedding.weight"])
