import pytest
import torch
from torch import nn

from braingpt.recipes import TrainConfig
from braingpt.train.optimizer import build_optimizer, decays, pack_state, unpack_state


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
        return self.up(x).square().sum() + (x @ self.columns).sum() + self.inhibition.square().sum() + self.head(x).sum()


def step(model, optimizer):
    model.loss().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_only_matrices_decay():
    model = Model()
    assert {name for name, p in model.named_parameters() if decays(name, p)} == {"up.weight", "columns", "unused"}
    groups = build_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_state_goes_there_and_back_and_training_goes_on_alike():
    torch.manual_seed(0)
    config = TrainConfig()
    one = Model()
    first = build_optimizer(one, config)
    step(one, first)
    packed = {name: tensor.clone() for name, tensor in pack_state(one, first).items()}
    assert "exp_avg.up.weight" in packed and "step.norm" in packed
    assert not [name for name in packed if "unused" in name], "no gradient, no state"
    two = Model()
    two.load_state_dict(one.state_dict())
    second = build_optimizer(two, config)
    unpack_state(two, second, packed)
    step(one, first)
    step(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(value, pack_state(two, second)[name]) for name, value in pack_state(one, first).items())


def test_foreign_state_is_refused():
    model = Model()
    optimizer = build_optimizer(model, TrainConfig())
    with pytest.raises(ValueError, match="no parameter for"):
        unpack_state(model, optimizer, {"exp_avg.other": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        unpack_state(model, optimizer, {"exp_avg.norm": torch.zeros(5)})
