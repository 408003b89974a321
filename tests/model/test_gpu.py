"""On a GPU each architecture computes what it computes on a CPU, by other kernels: logits, gradients, and
token after token.
"""

import pytest
import torch
from torch import Tensor

from tests.conftest import SMALL, awake

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BATCH, LENGTH = 3, 48


@pytest.fixture
def both(architecture):
    """The same float32 model on a CPU and on a GPU, and ids for it."""
    models = [awake(SMALL[architecture]).float().to(device) for device in ("cpu", "cuda")]
    ids_BL = torch.randint(
        1, SMALL[architecture].vocab, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(3)
    )
    return *models, ids_BL


def alike(one: Tensor, other: Tensor) -> float:
    """Share of rows (last dimension) that agree to a thousandth of the largest entry: a choice that rounding
    flips costs a row, not the test.
    """
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    return ((one - other).abs().amax(-1) < 1e-3 * other.abs().max().clamp(min=1e-6)).double().mean().item()


def test_logits(both):
    cpu, gpu, ids_BL = both
    assert alike(gpu.eval()(ids_BL.cuda()).logits, cpu.eval()(ids_BL).logits) > 0.95


def test_gradients(both):
    cpu, gpu, ids_BL = both
    for model in (cpu, gpu):
        ids = ids_BL.to(model.device)
        model.train()(ids[:, :-1], ids[:, 1:]).loss.backward()
    off = {
        name: alike(theirs.grad.flatten()[None], ours.grad.flatten()[None])
        for (name, ours), theirs in zip(cpu.named_parameters(), gpu.parameters(), strict=True)
        if ours.grad is not None
    }
    assert sum(off.values()) >= 0.9 * len(off), [name for name, share in off.items() if share < 1]


def test_steps(both):
    _, gpu, ids_BL = both
    gpu.eval()
    ids = ids_BL[:1].cuda()
    state = gpu.new_state(1)
    with torch.no_grad():
        steps = torch.stack([gpu.step(ids[:, t], state) for t in range(LENGTH)], 1)
        assert alike(steps, gpu(ids[:, :LENGTH]).logits) > 0.95


def test_bfloat16_training_step(both):
    _, gpu, ids_BL = both
    ids = ids_BL.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        loss = gpu.train()(ids[:, :-1], ids[:, 1:]).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in gpu.parameters() if p.grad is not None)
