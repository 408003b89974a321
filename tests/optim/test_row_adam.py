"""The optimizer of tables, against the formula in float64, dense gradients and checkpoints."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from braingpt.optim.optimizer import Optimizers, build_optimizer, pack_state, unpack_state
from braingpt.optim.row_adam import RowAdam, clip, gradient_values
from braingpt.recipes import TrainConfig
from tests.conftest import SMALL, awake

ROWS, WIDTH, BETA, RATE = 9, 3, 0.9, 0.1


def table(seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed)).double())


def looked_up(parameter: nn.Parameter, rows: list[int], seed: int, sparse: bool = True) -> None:
    """Add the gradient of a lookup, each row as often as it is named."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(rows), WIDTH, generator=generator, dtype=torch.float64)
    (
        nn.functional.embedding(torch.tensor(rows, dtype=torch.long), parameter, sparse=sparse) * weight
    ).sum().backward()


def optimizer(parameter: nn.Parameter) -> RowAdam:
    return RowAdam([{"params": [parameter]}], RATE, BETA, 1e-8)


lookups = st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(lookups, st.integers(0, 10**6))
def test_steps_are_the_formula_and_untouched_rows_stay(steps, seed):
    """Sparse or dense, a gradient gives the same steps: those of each row's own running mean square."""
    tables = {sparse: table() for sparse in (True, False)}
    optimizers = {sparse: optimizer(tables[sparse]) for sparse in tables}
    expected, square = table().detach().clone(), [0.0] * ROWS
    for number, rows in enumerate(steps):
        for sparse, parameter in tables.items():
            # in two pieces, as micro-batches add them
            looked_up(parameter, rows, seed + number, sparse)
            looked_up(parameter, rows[:3], seed - number, sparse)
            if number % 2:
                gradient_values([parameter])
        dense = tables[False].grad
        for sparse, parameter in tables.items():
            optimizers[sparse].step()
            assert parameter.grad.is_sparse == sparse
        for row in range(ROWS):
            mean = float(dense[row].square().mean())
            if mean > 0:
                square[row] = BETA * square[row] + (1 - BETA) * mean if square[row] else mean
                expected[row] -= RATE * dense[row] / (square[row] ** 0.5 + 1e-8)
        for parameter in tables.values():
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-9, atol=1e-9)
            parameter.grad = None
    untouched = [row for row in range(ROWS) if not square[row]]
    assert torch.equal(tables[True][untouched], table()[untouched])


@given(st.lists(st.integers(0, ROWS - 1), max_size=20), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_summed_rows_have_the_dense_gradients_norm(rows, seed):
    sparse, dense, other = table(), table(), table(1)
    for number, parameter in enumerate((sparse, dense)):
        looked_up(parameter, rows, seed, sparse=number == 0)
    other.grad = torch.ones_like(other)
    norms = []
    for parameter in (sparse, dense):
        other.grad = torch.ones_like(other)
        values = gradient_values([parameter, other])
        norms.append(torch.nn.utils.get_total_norm(values))
        clip([parameter, other], 0.5, norms[-1])
        clipped = torch.nn.utils.get_total_norm(gradient_values([parameter, other]))
        torch.testing.assert_close(clipped, torch.tensor(0.5, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(*norms)
    torch.testing.assert_close(sparse.grad.to_dense(), dense.grad)


def test_rows_that_fill_the_shape_change_nothing():
    """As a GPU has them: row 0 again and again, with zeros."""
    filled, plain = table(), table()
    steps = [optimizer(filled), optimizer(plain)]
    for _ in range(2):
        looked_up(plain, [0, 4], 0)
        gradient = plain.grad.coalesce()
        rows, values = gradient.indices(), gradient.values()
        filled.grad = torch.sparse_coo_tensor(
            torch.cat([rows, torch.zeros(1, 3, dtype=torch.long)], 1),
            torch.cat([values, torch.zeros(3, WIDTH, dtype=torch.float64)]),
            plain.shape,
            is_coalesced=True,
            check_invariants=False,
        )
        for one in steps:
            one.step()
        plain.grad = None
    assert torch.equal(filled, plain)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_step_can_be_left_out_by_a_tensor(value):
    """Also one whose gradient is not finite."""
    parameter = table()
    steps = Optimizers(optimizer(parameter))
    looked_up(parameter, [1, 2], 0)
    gradient_values([parameter])
    steps.step(torch.tensor(0.0))
    before, state = parameter.detach().clone(), steps.optimizers[0].state[parameter]["row_square"].clone()
    parameter.grad._values().mul_(value)
    steps.step(torch.tensor(1.0))
    assert torch.equal(parameter, before)
    assert torch.equal(steps.optimizers[0].state[parameter]["row_square"], state)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_model_with_a_table_continues_from_its_state(kind):
    """Bit for bit; the table's state is a number a row."""
    config = TrainConfig(optimizer=kind, embedding_rate=4)
    ids = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))

    def learn(model, steps):
        model(ids[:, :-1], ids[:, 1:]).loss.backward()
        assert model.lexical.table.grad.is_sparse
        gradient_values(model.parameters())
        steps.step()
        steps.zero_grad()

    one = awake(SMALL["v2-lexical"]).train()
    first = build_optimizer(one, config)
    rates = {id(p): group.get("rate", 1) for group in first.param_groups for p in group["params"]}
    assert rates[id(one.lexical.table)] == 4
    learn(one, first)
    packed = {name: tensor.clone() for name, tensor in pack_state(one, first).items()}
    assert packed["row_square.lexical.table"].shape == (61, 1)
    assert [name for name in packed if name.endswith("lexical.table")] == ["row_square.lexical.table"]
    two = awake(SMALL["v2-lexical"]).train()
    two.load_state_dict(one.state_dict())
    second = build_optimizer(two, config)
    unpack_state(two, second, packed)
    learn(one, first)
    learn(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(
        pack_state(one, first)["row_square.lexical.table"],
        pack_state(two, second)["row_square.lexical.table"],
    )
