"""2:4 structured weights: of every four weights along the input, the two largest stay (Zhou et al.

2021, SR-STE).

Ampere and later GPUs multiply such matrices in compressed form; everywhere else they are ordinary matrices
with half their entries zero. Whether the sparse product is worth it depends on the shape, so each shape is
timed once (`gain`), and stays dense below `LEAST_GAIN`.

Legend: O outputs, I inputs, N rows that are multiplied.
"""

import functools
import itertools
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.kernels import dispatch

# dense time over sparse time from which the sparse product is used
LEAST_GAIN = 1.05
# products a timing
ROUNDS = 20
PAIRS = tuple(itertools.combinations(range(4), 2))


def two_four_mask(weight_OI: Tensor) -> Tensor:
    """True for the two largest magnitudes of each group of four along the last dimension (a multiple of 4);
    of equals the first.

    By six comparisons, whose outcome names one of 64 masks. A `topk` takes eight times as long on a CPU.
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
    """(64,) by the outcome of six comparisons, bit by bit in the order of `PAIRS`: the mask's four bytes as
    one int32. Who wins two of three stays.
    """
    won_64x6 = torch.arange(64, device="cpu").unsqueeze(1) >> torch.arange(6, device="cpu") & 1
    wins_64x4 = torch.zeros(64, 4, dtype=torch.long, device="cpu")
    for bit, (one, other) in enumerate(PAIRS):
        wins_64x4[:, one] += won_64x6[:, bit]
        wins_64x4[:, other] += 1 - won_64x6[:, bit]
    return (wins_64x4 >= 2).view(torch.int32).flatten().to(device)


class _StraightThrough(torch.autograd.Function):
    """Forward: masked weight.

    Backward: the gradient reaches every weight, and pruned ones decay toward zero (SR-STE, eq. 9).
    """

    @staticmethod
    def forward(ctx, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        masked = weight * mask
        ctx.save_for_backward(weight, masked)
        ctx.decay = decay
        return masked

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, masked = ctx.saved_tensors
        # The difference is exactly what was pruned: no inverted mask is made, and none kept.
        return grad.add(weight - masked, alpha=ctx.decay), None, None


def masked_weight(weight_OI: Tensor, mask_OI: Tensor, decay: float = 2e-4) -> Tensor:
    """The weight with its pruned entries zero; differentiable straight through to all entries."""
    return _StraightThrough.apply(weight_OI, mask_OI, decay)


def compress(weight_OI: Tensor, mask_OI: Tensor) -> tuple[Tensor, Tensor]:
    """The kept weights (O, I / 2), and in one byte for every eight inputs where they stood: two places of two
    bits for each four.

    17 bits a weight in float32 and 9 in bfloat16. The mask must keep two of every four.
    """
    outputs, inputs = weight_OI.shape
    places = (~mask_OI.view(outputs, -1, 4)).to(torch.uint8).argsort(dim=-1, stable=True)[..., :2]
    values_OH = weight_OI.detach().view(outputs, -1, 4).gather(-1, places).flatten(1)
    codes = (places[..., 0] | places[..., 1] << 2).to(torch.uint8)
    codes = F.pad(codes, (0, inputs // 4 % 2)).view(outputs, -1, 2)
    return values_OH, codes[..., 0] | codes[..., 1] << 4


def expand(values_OH: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and mask (O, I) of what `compress` returned."""
    outputs, groups = len(values_OH), values_OH.shape[1] // 2
    fours = torch.stack([codes & 15, codes >> 4], -1).flatten(1)[:, :groups]
    places = torch.stack([fours & 3, fours >> 2], -1).long()
    zeros = values_OH.new_zeros(outputs, groups, 4)
    mask = torch.zeros_like(zeros, dtype=torch.bool).scatter_(-1, places, True)
    return zeros.scatter_(-1, places, values_OH.view(outputs, groups, 2)).flatten(1), mask.flatten(1)


def why_no_sparse_cores() -> str | None:
    """Why sparse tensor cores cannot multiply here."""
    if not torch.cuda.is_available():
        return "needs a GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return "needs a GPU of compute capability 8.0 or later"
    return (
        None if hasattr(torch.sparse, "to_sparse_semi_structured") else f"torch {torch.__version__} lacks it"
    )


def _for_sparse_cores(x: Tensor) -> bool:
    """float32 would be rounded to TF32 by the sparse product, so it is taken only where the process allows
    that.
    """
    return x.is_cuda and (
        x.dtype in (torch.bfloat16, torch.float16)
        or (x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32)
    )


def sparse_pays(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether so many rows are multiplied at least `LEAST_GAIN` times as fast with the compressed weight;
    rows are rounded up to a power of two.
    """
    if dispatch.select("two_four", torch.empty(0, dtype=dtype, device=device)) == "torch":
        return False
    return gain(1 << max(rows - 1, 0).bit_length(), shape, dtype, device) >= LEAST_GAIN


@functools.cache
def gain(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> float:
    """Dense time over sparse time of the product, measured once; 0 where torch cannot compress the shape."""
    x_NI = torch.randn(rows, shape[1], dtype=dtype, device=device)
    weight_OI = torch.randn(shape, dtype=dtype, device=device)
    weight_OI *= two_four_mask(weight_OI)
    try:
        sparse = torch.sparse.to_sparse_semi_structured(weight_OI)
        F.linear(x_NI, sparse)
    except (RuntimeError, NotImplementedError):
        return 0.0
    spent = {True: [], False: []}
    # in turns; the least of each
    for _ in range(3):
        for is_sparse, weight in ((False, weight_OI), (True, sparse)):
            spent[is_sparse].append(_seconds(x_NI, weight))
    return min(spent[False]) / min(spent[True])


def _seconds(x_NI: Tensor, weight: Tensor) -> float:
    F.linear(x_NI, weight)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        F.linear(x_NI, weight)
    torch.cuda.synchronize()
    return time.perf_counter() - began


dispatch.register(
    "two_four", ("sparse tensor cores", why_no_sparse_cores, _for_sparse_cores), ("torch", dispatch.anywhere)
)
