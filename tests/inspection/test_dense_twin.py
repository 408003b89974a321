"""A clock and the bytes that move do not believe what a layer says of itself."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from braingpt.inspection.dense_twin import ByteCounter, _bytes_moved, _read, compare_with_twin, dense_twin
from braingpt.inspection.sparsity import sparsity_of_tokens
from braingpt.kernels.columns import columns as columns_kernel
from braingpt.kernels.columns import triton_ops
from braingpt.kernels.launch import launch, stored_bytes
from braingpt.kernels.pointwise import squared_relu
from braingpt.model.columns.columns import SparseColumns
from braingpt.model.lm import build
from braingpt.recipes import load_recipe
from tests.conftest import SMALL

WIDE = [
    "model.layers=1",
    "model.hidden=192",
    "model.vocab=512",
    "model.columns.count=160",
    "model.columns.width=64",
    "model.attention.layers=[]",
]
IDS = torch.randint(512, (48,), generator=torch.Generator().manual_seed(0)).tolist()


class Impostor(nn.Module):
    """Computes all columns, multiplies by a mask, and counts the winners only: what earlier work called
    sparse.
    """

    def __init__(self, real: SparseColumns) -> None:
        super().__init__()
        self.real, self.columns, self.competition, self.shared, self.weight = (
            real,
            real.columns,
            real.competition,
            real.shared,
            real.weight,
        )
        self.record = None
        self.up = nn.Parameter(real.weight.detach()[:, 0].flatten(0, 1).contiguous())
        self.down = nn.Parameter(real.weight.detach()[:, 1].flatten(0, 1).contiguous())

    def forward(self, x_BLD, valid_BL):
        x_ND = x_BLD.flatten(0, 1)
        winner_NA, share_NA, _ = self.competition(x_ND)
        mask_NE = torch.zeros(len(x_ND), self.columns.count).scatter(1, winner_NA, share_NA)
        act_NEW = squared_relu(x_ND @ self.up.T).unflatten(-1, (self.columns.count, -1)) * mask_NE[..., None]
        if self.record is not None:
            won = act_NEW.gather(1, winner_NA[..., None].expand(-1, -1, self.columns.width))
            SparseColumns._count(self, self.record, winner_NA, won.flatten(0, 1).sqrt())
        return (act_NEW.flatten(1) @ self.down + self.shared(x_ND)).view_as(x_BLD)

    def flops(self):
        return self.real.flops()

    def parameters_active(self):
        return self.real.parameters_active()


@pytest.fixture(scope="module")
def honest():
    model = build(load_recipe("nano-v2", WIDE).model).eval()
    with torch.no_grad():
        model.blocks[0].mlp.weight.normal_(0, 0.05)
    return model


def columns_of(model):
    return next(one for one in compare_with_twin(model, IDS, 48, rounds=4) if one.part == "mlp")


def test_the_masked_dense_impostor_is_exposed_and_the_honest_layer_is_not(honest):
    real = columns_of(honest)
    block = honest.blocks[0]
    block.mlp = Impostor(block.mlp)
    try:
        # The same function, and the same claims.
        with torch.no_grad():
            claims = sparsity_of_tokens(honest, IDS)
            fake = columns_of(honest)
    finally:
        block.mlp = block.mlp.real
    assert (
        claims.total.columns_active == pytest.approx(3 / 161)
        and claims.total.columns_active == sparsity_of_tokens(honest, IDS).total.columns_active
    )
    assert fake.counted == real.counted < 0.1 and fake.promised == real.promised < 0.1
    assert real.writing_bytes < 0.1 < 0.95 < fake.writing_bytes and fake.reading_bytes > 1
    assert real.writing_time < 0.5 < fake.writing_time


def unwatched(*args, **meta):
    """A launch without what Triton's interpreter does by torch's operations, which no GPU does."""
    with _disable_current_modes():
        launch(*args, **meta)


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are forced on where Triton interprets them")
def test_where_kernels_run_the_bytes_are_those_of_the_winners(honest, monkeypatch):
    won = []
    competition = honest.blocks[0].mlp.competition
    hook = competition.register_forward_hook(lambda _module, _args, out: won.append(len(out[0].unique())))
    ids = torch.tensor([IDS])
    with torch.no_grad():
        plain = _bytes_moved(honest, _read, ids)
        monkeypatch.setenv("BRAINGPT_KERNELS", "columns=triton,scan=triton")
        monkeypatch.setattr(columns_kernel, "_triton_supports", lambda x_ND: True)
        monkeypatch.setattr(triton_ops, "launch", unwatched)
        kernels = _bytes_moved(honest, _read, ids)
    hook.remove()
    least = won[1] * stored_bytes(honest.blocks[0].mlp.weight[0]) + 2 * stored_bytes(
        honest.blocks[0].mlp.shared.up.weight
    )
    assert won[0] == won[1] < 100 and least < kernels.parts[0, "mlp"]
    # Kernels write less between their products, and read the same weights.
    for part in ("mlp", "mixer"):
        assert 0.7 < kernels.parts[0, part] / plain.parts[0, part] <= 1


def test_where_kernels_of_others_run_no_bytes_are_told(honest, monkeypatch):
    monkeypatch.setattr("braingpt.inspection.dense_twin.UNCOUNTED_BACKENDS", ("chunked",))
    found = compare_with_twin(honest, IDS, 48, rounds=1)
    assert all(
        one.reading_bytes is None and one.writing_bytes is None and one.reading_time > 0 for one in found
    )


def test_impostor_and_honest_layer_compute_the_same(honest):
    x = torch.randn(2, 5, 192)
    with torch.no_grad():
        torch.testing.assert_close(
            Impostor(honest.blocks[0].mlp)(x, None), honest.blocks[0].mlp(x, None), rtol=1e-4, atol=1e-4
        )


def test_a_dense_model_is_its_own_twin():
    model = build(SMALL["dense-grouped"]).eval()
    assert dense_twin(model).config == model.config
    found = compare_with_twin(model, [token % 97 for token in IDS], 32, rounds=1)
    assert [(one.layer, one.part) for one in found] == [
        (0, "mixer"),
        (0, "mlp"),
        (1, "mixer"),
        (1, "mlp"),
        (None, "model"),
    ]
    for one in found:
        assert (
            one.promised == one.counted == one.reading_bytes == one.writing_bytes == 1
            and one.reading_time > 0
            and one.writing_time > 0
        )


def test_layers_that_no_token_reaches_take_nothing():
    model = build(SMALL["v2-depth"]).eval()
    with torch.no_grad():
        for exit_ in model.exits:
            exit_.selector.levels.fill_(float("inf"))
    last = compare_with_twin(model, [token % 97 for token in IDS], 32, rounds=1)[-3:-1]
    assert all(
        one.counted == one.reading_time == one.reading_bytes == one.writing_time == 0 < one.promised
        for one in last
    )


def test_moved_counts_what_is_read_and_written():
    table, x = torch.zeros(1000, 8), torch.ones(4, 8)
    with ByteCounter() as moved:
        turned = x.view(8, 4).T
    assert turned.shape == (4, 8) and moved.bytes == 0
    with ByteCounter() as moved:
        x @ table[:16].T
    assert moved.bytes == 4 * (32 + 16 * 8 + 4 * 16)
    with ByteCounter() as moved:
        torch.nn.functional.embedding(torch.tensor([1, 2]), table)
    assert moved.bytes == 2 * 4 * 16
    with ByteCounter() as moved:
        x + torch.ones(1).expand(4, 8)
    assert moved.bytes >= 4 * (32 + 1 + 32) and moved.bytes < 4 * (32 + 32 + 32)
