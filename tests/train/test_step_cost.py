import pytest
import torch

from braingpt.device.free_memory import free_memory
from braingpt.errors import Failure
from braingpt.model.lm import build
from braingpt.train import micro_batches
from braingpt.train.loop import train
from braingpt.train.plan.plan import build_plan, largest_fitting, plan_run
from braingpt.train.plan.step_cost import Alive, _SmallModel, layer_kinds, measure_step_cost, with_layers
from braingpt.train.recompute import recompute_blocks
from tests.tiny_runs import tiny
from tests.train.test_loop import StopAt, history

CPU = torch.device("cpu")


def test_bytes_alive_are_followed():
    known = torch.zeros(1000)
    with Alive([known]) as alive:
        known.add_(1)
        one = torch.zeros(100, dtype=torch.float64)
        view = one[:50]
        del one
        # two tensors of 100 bytes, one of which goes
        two = torch.zeros(25) + 1
        assert alive.now == 800 + 100 and alive.peak == 800 + 200
        del view, two
    assert alive.now == 0


def grads_of(recipe, recompute=False):
    """(peak bytes of activations, gradients) of a whole model."""
    model = build(recipe).train()
    if recompute:
        recompute_blocks(model)
    ids = torch.randint(
        0,
        recipe.model.vocab,
        (recipe.train.batch, recipe.train.context),
        generator=torch.Generator().manual_seed(0),
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Alive([*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers(), ids]) as alive:
        model(ids, ids).loss.backward()
    return alive.peak, [p.grad for p in model.parameters()]


WIDER = ("model.hidden=64", "model.layers=6", "train.context=128", "train.batch=16", "train.micro_batch=null")


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_a_few_layers_tell_what_all_take(architecture):
    lexical = ("model.lexical.rows=5000", "model.lexical.layers=[0,3]")
    mixers = ("model.attention.layers=[1,4]", "model.mamba.layers=[0,2,3]")
    extra = (*mixers, *lexical) if architecture == "v2" else ()
    recipe = tiny(architecture, *WIDER, *extra)
    assert measure_step_cost(recipe, CPU).activations(16) == pytest.approx(grads_of(recipe)[0], rel=0.15)


def test_layers_keep_their_kind():
    model = tiny("v2", "model.layers=4", "model.attention.layers=[1]", "model.memory.layers=[3]").model
    assert layer_kinds(model) == ["mamba", "selective", "mamba", "memory"]
    assert layer_kinds(with_layers(model, ["memory", "selective"])) == ["memory", "selective"] and build(
        with_layers(model, ["memory"])
    )


@pytest.mark.parametrize("architecture", ["dense", "v1", "v2"])
def test_recomputed_blocks_take_less_and_give_the_same(tmp_path, data, architecture):
    recipe = tiny(architecture, *WIDER)
    (plain, expected), (less, micro_batches) = grads_of(recipe), grads_of(recipe, recompute=True)
    assert less < 0.75 * plain
    torch.testing.assert_close(micro_batches, expected)
    small = ("train.steps=3", "train.eval_every=9", "train.save_every=9")
    one = train(tiny(architecture, *small), tmp_path / "plain", [data], device="cpu")
    two = train(
        tiny(architecture, *small, "train.recompute=true"), tmp_path / "recomputed", [data], device="cpu"
    )
    assert two.loss == pytest.approx(one.loss, rel=1e-5)


def test_the_largest_micro_batch_that_fits_is_taken():
    recipe = tiny("dense", "train.batch=12")
    plan, cost = build_plan(recipe, None), measure_step_cost(recipe, CPU)
    room = plan.with_cost(cost, 12, 4).peak_bytes
    assert (
        largest_fitting(plan, cost, 12, room) == 4
        and largest_fitting(plan, cost, 12, 10**12) == 12
        and largest_fitting(plan, cost, 12, 10) is None
    )
    assert (
        plan_run(recipe, CPU, None)[0].micro_batch == 12
        and plan_run(recipe, CPU, None, micro_batch=3)[0].micro_batch == 3
    )
    assert 0 < free_memory(CPU) < 10**14
    single, many = plan.with_cost(cost, 12, 12), plan.with_cost(cost, 12, 6)
    assert (
        single.peak_bytes - single.memory_bytes < single.activations_bytes
        and many.peak_bytes == many.memory_bytes + many.activations_bytes
    )


def test_out_of_memory_halves_the_pieces_and_goes_on(tmp_path, data, monkeypatch):
    small = ("train.steps=4", "train.eval_every=4", "train.save_every=2")
    whole = train(tiny("v2", *small, "train.micro_batch=1"), tmp_path / "whole", [data], device="cpu")
    plenty = micro_batches.gradients

    def short(learner, batching, step):
        if batching.micro > 1:
            # It counts into the buffers before it fails.
            learner.model(*batching.loader.micro_batches(step, batching.micro)[0][:2])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plenty(learner, batching, step)

    monkeypatch.setattr(micro_batches, "gradients", short)
    listener = StopAt(2)
    train(tiny("v2", *small), tmp_path / "run", [data], reporter=listener, device="cpu")
    done = train(tiny("v2", *small), tmp_path / "run", resume="auto", reporter=listener, device="cpu")
    told = [note for note in listener.notes if "out of memory" in note]
    assert told == [
        "out of memory in step 1: continuing with 2 windows at a time",
        "out of memory in step 1: continuing with 1 window at a time",
    ]
    assert done.loss == whole.loss and history(tmp_path / "run") == history(tmp_path / "whole")

    def never(learner, batching, step):
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        )

    monkeypatch.setattr(micro_batches, "gradients", never)
    with pytest.raises(Failure, match="one window of 32 tokens does not fit into memory"):
        train(tiny("v2", *small), tmp_path / "never", [data], device="cpu")


def test_recomputed_layers_of_several_kinds_are_planned_as_they_are():
    """The block whose recomputation peaks is not always the last: differences between one and two layers
    would miss the inputs of the others.
    """
    small = ("train.recompute=true", "train.context=64", "model.layers=6", "model.attention.layers=[2,5]")
    recipe = tiny("v2", *small)
    planned = measure_step_cost(recipe, CPU).activations(16)
    whole = _SmallModel(recipe, layer_kinds(recipe.model), CPU)
    whole.learn(1, 64)
    assert whole.measure(16, 64)[0] <= planned <= 1.1 * whole.measure(16, 64)[0]
