"""What a launch says it moves, against every address that Triton's interpreter loads and stores."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("addresses are those of Triton's interpreter", allow_module_level=True)

from triton.runtime import interpreter

from braingpt.kernels.columns import triton_ops as columns_ops
from braingpt.kernels.columns.pairs import Pairs
from braingpt.kernels.columns.triton_products import TritonProducts
from braingpt.kernels.competition import triton_ops as competition_ops
from braingpt.kernels.launch import count_launches, stored_bytes
from braingpt.kernels.scan import triton_ops as scan_ops
from braingpt.kernels.sparse_attention import triton_ops as attention_ops

DRAW = torch.Generator().manual_seed(3)


@pytest.fixture
def launches(monkeypatch):
    """[(said, loaded and stored)] of the launches so far, in bytes; each address counts once for loads and
    once for stores.
    """
    found, touched = [], {"load": set(), "store": set()}

    def seen(kind, pointers, mask):
        size = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize
        addresses, real = np.broadcast_arrays(pointers.data, mask.data)
        touched[kind].update((int(address), size) for address in np.unique(addresses[real]))

    def load(self, pointers, mask, *others):
        seen("load", pointers, mask)
        return real_load(self, pointers, mask, *others)

    def store(self, pointers, value, mask, *others):
        seen("store", pointers, mask)
        return real_store(self, pointers, value, mask, *others)

    builder = interpreter.InterpreterBuilder
    real_load, real_store = builder.create_masked_load, builder.create_masked_store
    monkeypatch.setattr(builder, "create_masked_load", load)
    monkeypatch.setattr(builder, "create_masked_store", store)

    def counter(said):
        found.append((said, sum(size for places in touched.values() for _, size in places)))
        for places in touched.values():
            places.clear()

    with count_launches(counter):
        yield found


def random(*shape):
    return torch.randn(*shape, generator=DRAW)


def agree(launches, count):
    assert len(launches) == count
    for said, moved in launches:
        assert moved == pytest.approx(said, rel=0.01), launches


def test_columns_read_the_winners_weights_alone(launches):
    x, weight, share = random(24, 64), random(40, 2, 16, 64), random(48)
    pairs = Pairs.of(torch.randint(7, (24, 2), generator=DRAW), 40)
    y, act = columns_ops.forward(x, weight, share, pairs.token, pairs.start)
    columns_ops.segment_sum(y, pairs.place.flatten(), None, 2)
    columns_ops.segment_sum(x, pairs.token, pairs.start, 0, share)
    columns_ops.backward(random(24, 64), x, weight, act, share, pairs.token, pairs.start)
    agree(launches, 5)
    won = len(pairs.start.diff().nonzero())
    assert won <= 7 and launches[0][0] < (won + 3) / 40 * stored_bytes(weight) < stored_bytes(weight)


def test_products_read_the_matrices_of_columns_with_rows(launches):
    x, matrix = random(50, 64), random(40, 24, 64)
    products = TritonProducts(Pairs.of(torch.randint(7, (50, 1), generator=DRAW), 40).start)
    y = products.times(x, matrix.mT)
    products.outer(y, x, matrix)
    agree(launches, 2)
    assert launches[0][0] < 0.3 * stored_bytes(matrix) < launches[1][0]


@pytest.mark.parametrize("columns", [40, 320])
def test_the_competition(launches, columns):
    strength = random(columns, columns) if columns <= 128 else random(2, columns, 8).abs() / 100
    competition_ops.compete(random(80, columns), strength, random(columns), 2, 3, 0.7, torch.float32, True)
    agree(launches, 1 if columns <= 128 else 2)


@pytest.mark.parametrize("documents", [False, True])
def test_the_scan(launches, documents):
    x, dt, a, b, c = (
        random(1, 40, 2, 40).requires_grad_(),
        random(1, 40, 2).sigmoid(),
        -torch.ones(2),
        random(1, 40, 24),
        random(1, 40, 24),
    )
    run = torch.arange(40).div(30, rounding_mode="floor")[None] if documents else None
    y, _ = scan_ops.triton_scan(x, dt, a, b, c, torch.zeros(1, 2, 24, 40), run, 16)
    agree(launches, 2)
    y.sum().backward()
    agree(launches, 6)


@pytest.mark.parametrize("documents", [False, True])
def test_magnitude_attention(launches, documents):
    q, k, v = (random(1, 2, 40, 24).requires_grad_() for _ in range(3))
    document = torch.arange(40).div(30, rounding_mode="floor")[None] if documents else None
    y, _ = attention_ops.magnitude_triton(q, k, v, document, 0.1, 4)
    y.sum().backward()
    agree(launches, 3)


def test_held_counts_what_stands_in_memory():
    class Compressed(torch.Tensor):
        """A wrapper like torch's tensors for sparse tensor cores: the shape of the whole, half of it stored,
        and where it belongs.
        """

        @staticmethod
        def __new__(cls, packed, meta):
            return torch.Tensor._make_wrapper_subclass(
                cls, (packed.shape[0], 2 * packed.shape[1]), dtype=packed.dtype
            )

        def __init__(self, packed, meta):
            self.packed, self.meta = packed, meta

        def __tensor_flatten__(self):
            return ["packed", "meta"], None

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise AssertionError("nothing is computed")

    assert stored_bytes(torch.zeros(3, 1).expand(3, 1000)) == 12
    assert stored_bytes(Compressed(torch.zeros(8, 8), torch.zeros(8, 4, dtype=torch.int8))) == 4 * 64 + 32
