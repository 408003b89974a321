"""2:4 structured weights: of every four weights along the input, the two largest remain.

Training follows SR-STE (Zhou et al. 2021, "Learning N:M Fine-grained Structured Sparse Neural Networks").
GPUs of the Ampere generation and later multiply such matrices in compressed form.
Everywhere else they are ordinary matrices with half their entries zero.
Whether the sparse product pays depends on the shape, so each shape is timed once (`gain`) and remains dense
below `MIN_GAIN`.

Legend: O outputs, I inputs, H = I / 2 kept inputs, N rows that are multiplied.
"""

import functools
import itertools
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend

# Dense time over sparse time from which the sparse product is used.
MIN_GAIN = 1.05
# Products in one timing.
PRODUCTS_TIMED = 20
# Timings of which the shortest counts.
TIMINGS = 3
# Pairs of the four weights that are compared.
PAIRS = tuple(itertools.combinations(range(4), 2))


def two_four_mask(weight_OI: Tensor) -> Tensor:
    """Choose the two largest magnitudes of each four along the last dimension; among equals the first wins.

    Six comparisons select one of 64 masks; `topk` takes eight times as long on a CPU.

    Args:
        weight_OI: The weight; I is a multiple of 4.

    Returns:
        (O, I) true at the chosen entries.
    """
    four = weight_OI.detach().abs().unflatten(-1, (-1, 4)).unbind(-1)
    outcome = torch.zeros_like(four[0], dtype=torch.uint8)
    for bit, (one, other) in enumerate(PAIRS):
        outcome.add_((four[one] >= four[other]).view(torch.uint8), alpha=1 << bit)
    return (
        _masks(weight_OI.device)
        .index_select(0, outcome.flatten().int())
        .view(torch.bool)
        .view(weight_OI.shape)
    )


@functools.cache
def _masks(device: torch.device) -> Tensor:
    """(64,) the mask's four bytes as one int32, for each outcome of six comparisons (bits in `PAIRS`' order).

    A weight that wins two of its three comparisons remains.
    """
    won_64x6 = torch.arange(64, device="cpu").unsqueeze(1) >> torch.arange(6, device="cpu") & 1
    wins_64x4 = torch.zeros(64, 4, dtype=torch.long, device="cpu")
    for bit, (one, other) in enumerate(PAIRS):
        wins_64x4[:, one] += won_64x6[:, bit]
        wins_64x4[:, other] += 1 - won_64x6[:, bit]
    return (wins_64x4 >= 2).view(torch.int32).flatten().to(device)


class _StraightThrough(torch.autograd.Function):
    """Forward the masked weight; backward all weights' gradient, and decay of pruned ones (SR-STE, eq. 9)."""

    @staticmethod
    def forward(ctx, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        masked = weight * mask
        ctx.save_for_backward(weight, masked)
        ctx.decay = decay
        return masked

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, masked = ctx.saved_tensors
        # The difference is exactly what was pruned, so no inverted mask is made or kept.
        return grad.add(weight - masked, alpha=ctx.decay), None, None


def masked_weight(weight_OI: Tensor, mask_OI: Tensor, decay: float = 2e-4) -> Tensor:
    """The weight with pruned entries zero, whose gradient passes straight through to all entries.

    Args:
        weight_OI: The weight.
        mask_OI: True at entries that remain.
        decay: How strongly the pruned entries are pulled toward zero (SR-STE, equation 9).

    Returns:
        The pruned weight (O, I).
    """
    return _StraightThrough.apply(weight_OI, mask_OI, decay)


def compress(weight_OI: Tensor, mask_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Compress a 2:4 weight to its kept entries and their places.

    A place takes two bits, so a weight takes 17 bits in float32 and 9 in bfloat16.

    Args:
        weight_OI: The weight.
        mask_OI: True at the kept entries, two of every four.

    Returns:
        The kept weights (O, H), and a byte for every eight inputs with the places.
    """
    outputs, inputs = weight_OI.shape
    places = (~mask_OI.view(outputs, -1, 4)).to(torch.uint8).argsort(dim=-1, stable=True)[..., :2]
    values_OH = weight_OI.detach().view(outputs, -1, 4).gather(-1, places).flatten(1)
    codes = (places[..., 0] | places[..., 1] << 2).to(torch.uint8)
    codes = F.pad(codes, (0, inputs // 4 % 2)).view(outputs, -1, 2)
    return values_OH, codes[..., 0] | codes[..., 1] << 4


def expand(values_OH: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Restore what `compress` was given.

    Args:
        values_OH: The kept weights.
        codes: Their places.

    Returns:
        Weight, zero where pruned, and mask, (O, I) each.
    """
    outputs, groups = len(values_OH), values_OH.shape[1] // 2
    fours = torch.stack([codes & 15, codes >> 4], -1).flatten(1)[:, :groups]
    places = torch.stack([fours & 3, fours >> 2], -1).long()
    zeros = values_OH.new_zeros(outputs, groups, 4)
    mask = torch.zeros_like(zeros, dtype=torch.bool).scatter_(-1, places, True)
    return zeros.scatter_(-1, places, values_OH.view(outputs, groups, 2)).flatten(1), mask.flatten(1)


def _sparse_cores_unavailable_reason() -> str | None:
    if reason := dispatch.ampere_unavailable_reason():
        return reason
    has_format = hasattr(torch.sparse, "to_sparse_semi_structured")
    return None if has_format else f"torch {torch.__version__} lacks it"


def _sparse_cores_support(x: Tensor) -> bool:
    """The sparse product would round float32 to TF32, so float32 needs a process that allows that."""
    if x.dtype == torch.float32:
        return x.is_cuda and bool(torch.backends.cuda.matmul.allow_tf32)
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def sparse_pays(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the compressed weight multiplies so many rows at least `MIN_GAIN` times as fast.

    The timing rounds the rows up to a power of two.
    """
    if dispatch.select("two_four", torch.empty(0, dtype=dtype, device=device)) == "torch":
        return False
    return gain(1 << max(rows - 1, 0).bit_length(), shape, dtype, device) >= MIN_GAIN


@functools.cache
def gain(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> float:
    """Dense time over sparse time of the product, timed once; 0 where torch cannot compress the shape."""
    x_NI = torch.randn(rows, shape[1], dtype=dtype, device=device)
    weight_OI = torch.randn(shape, dtype=dtype, device=device)
    weight_OI *= two_four_mask(weight_OI)
    try:
        sparse = torch.sparse.to_sparse_semi_structured(weight_OI)
        F.linear(x_NI, sparse)
    except (RuntimeError, NotImplementedError):
        return 0.0
    seconds: dict[bool, list[float]] = {True: [], False: []}
    # In turns, so that both meet the same machine.
    for _ in range(TIMINGS):
        for is_sparse, weight in ((False, weight_OI), (True, sparse)):
            seconds[is_sparse].append(_seconds(x_NI, weight))
    return min(seconds[False]) / min(seconds[True])


def _seconds(x_NI: Tensor, weight: Tensor) -> float:
    F.linear(x_NI, weight)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(PRODUCTS_TIMED):
        F.linear(x_NI, weight)
    torch.cuda.synchronize()
    return time.perf_counter() - began


dispatch.register(
    "two_four",
    Backend("sparse tensor cores", _sparse_cores_unavailable_reason, _sparse_cores_support),
    Backend("torch"),
)
