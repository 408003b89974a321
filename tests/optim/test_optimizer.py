import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from braingpt.optim.muon import Muon, _iterated, orthogonalised
from braingpt.optim.optimizer import build_optimizer, decays, pack_state, set_learning_rate, unpack_state
from braingpt.recipes import TrainConfig


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.up = nn.Linear(4, 6)
        self.norm = nn.Parameter(torch.ones(4))
        self.columns = nn.Parameter(torch.randn(2, 4, 3))
        self.inhibition = nn.Parameter(torch.randn(2, 2))
        self.unused = nn.Parameter(torch.randn(2, 2))
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embedding.weight

    def loss(self) -> torch.Tensor:
        x = self.embedding.weight * self.norm
        return (
            self.up(x).square().sum()
            + (x @ self.columns).sum()
            + self.inhibition.square().sum()
            + self.head(x).sum()
        )


def step(model, optimizer):
    model.loss().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_only_matrices_decay():
    model = Model()
    assert {name for name, p in model.named_parameters() if decays(name, p)} == {
        "up.weight",
        "columns",
        "unused",
    }
    groups = build_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_embedding_has_a_rate_of_its_own(kind):
    model = Model()
    optimizer = build_optimizer(model, TrainConfig(optimizer=kind, embedding_rate=4))
    set_learning_rate(optimizer, 1e-3)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert all(
        rate == pytest.approx(4e-3 if parameter is model.embedding.weight else 1e-3)
        for parameter, rate in rates.items()
    )
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_there_and_back_and_training_goes_on_alike(kind):
    torch.manual_seed(0)
    config = TrainConfig(optimizer=kind)
    one = Model()
    first = build_optimizer(one, config)
    step(one, first)
    packed = {name: tensor.clone() for name, tensor in pack_state(one, first).items()}
    assert {"adamw": "exp_avg.up.weight", "muon": "momentum.up.weight"}[
        kind
    ] in packed and "step.norm" in packed
    assert not [name for name in packed if "unused" in name], "no gradient, no state"
    two = Model()
    two.load_state_dict(one.state_dict())
    second = build_optimizer(two, config)
    unpack_state(two, second, packed)
    step(one, first)
    step(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(
        torch.equal(value, pack_state(two, second)[name]) for name, value in pack_state(one, first).items()
    )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_is_seen_by_what_is_made_of_weights_and_kept(kind):
    model = Model()
    optimizer = build_optimizer(model, TrainConfig(optimizer=kind))
    learning = [p for name, p in model.named_parameters() if name != "unused"]
    before = [parameter._version for parameter in learning]
    step(model, optimizer)
    assert all(parameter._version > version for parameter, version in zip(learning, before, strict=True))


def test_a_step_can_be_left_out_by_a_tensor():
    torch.manual_seed(0)
    model = Model()
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon"))
    step(model, optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    state = {name: value.clone() for name, value in pack_state(model, optimizer).items()}
    model.loss().backward()
    optimizer.step(torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(value, pack_state(model, optimizer)[name]) for name, value in state.items())
    optimizer.step(torch.tensor(0.0))
    assert not any(
        torch.equal(a, b)
        for name, a, b in zip(dict(model.named_parameters()), before, model.parameters(), strict=True)
        if name != "unused"
    )


def test_foreign_state_is_refused():
    model = Model()
    optimizer = build_optimizer(model, TrainConfig())
    with pytest.raises(ValueError, match="no parameter for"):
        unpack_state(model, optimizer, {"exp_avg.other": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        unpack_state(model, optimizer, {"exp_avg.norm": torch.zeros(5)})


@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    stack=st.integers(1, 3),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
)
@settings(max_examples=25, deadline=None)
def test_orthogonalised_directions_are_alike(rows, columns, stack, scale):
    matrix = (
        torch.randn(
            stack, rows, columns, generator=torch.Generator().manual_seed(rows * columns), dtype=torch.float64
        )
        * scale
    )
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    # far from singular, as the iteration assumes
    spread = torch.linspace(1, 2, min(rows, columns), dtype=torch.float64)
    matrix = u * spread * scale @ vh
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.6 and values.max() < 1.3
    alone = torch.stack([orthogonalised(one) for one in matrix])
    torch.testing.assert_close(orthogonalised(matrix), alone)


@pytest.mark.parametrize("shape", [(8, 16), (5, 40), (3, 8, 32), (48, 8)])
def test_iterating_on_the_gram_matrix_is_the_same(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
    wide = (matrix.mT if shape[-2] > shape[-1] else matrix).reshape(-1, min(shape[-2:]), max(shape[-2:]))
    expected = _iterated(wide / wide.norm(dim=(-2, -1), keepdim=True))
    torch.testing.assert_close(
        orthogonalised(matrix), (expected.mT if shape[-2] > shape[-1] else expected).reshape(shape)
    )


def test_the_steps_are_those_of_the_library():
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(24, 16))
    other = nn.Parameter(matrix.detach().clone())
    ours = Muon([{"params": [matrix]}], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon([other], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = matrix.detach().clone()
    for _ in range(4):
        matrix.grad = torch.randn_like(matrix)
        other.grad = matrix.grad.clone()
        ours.step()
        theirs.step()
    # the library's is in bfloat16
    assert (matrix - other).norm() < 0.02 * (matrix - start).norm()


def test_a_joint_projection_is_stepped_as_its_parts():
    torch.manual_seed(0)
    parts = [nn.Parameter(torch.randn(8, 8)) for _ in range(3)]
    joint = nn.Parameter(torch.cat([p.detach() for p in parts]))
    joined = Muon([{"params": [joint], "parts": 3}], lr=0.1)
    single = Muon([{"params": parts}], lr=0.1)
    joint.grad = torch.randn_like(joint)
    for part, grad in zip(parts, joint.grad.chunk(3), strict=True):
        part.grad = grad.clone()
    joined.step()
    single.step()
    torch.testing.assert_close(joint, torch.cat(list(parts)))
