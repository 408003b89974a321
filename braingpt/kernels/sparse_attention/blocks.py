"""Magnitude attention in blocks of query rows that stay in the cache: nothing of L x T is ever held, forward
or backward.

Of each block only the scores are computed densely, for no one knows the largest without them. Then partial
sorting names each row's survivors, and softmax, values and the queries' gradient are a matter of these few.
The backward pass scores and chooses each block again.

Survivors are chosen by the bits of |score|, integers in the order of the floats that are not negative (the
others below), which NumPy partially sorts with vector instructions: with the search for who reaches the bar
0.5 ms, where `torch.topk` takes 2.7 (256 rows of 1,024 scores, one core, AVX2).

Legend: X rows of the batch x heads, R query rows of a block, N keys up to its last query, A survivors a row,
K channels a head.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from braingpt.kernels.sparse_attention.reference import quotas, reach

# query rows of a block
ROWS = 64
# scores of a block, about
NUMBERS = 2**18


class _Workspace:
    """Memory by name, used again for every block so that it stays in the cache."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.kept = like, {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        numel = math.prod(shape)
        if name not in self.kept or self.kept[name].numel() < numel:
            self.kept[name] = self.like.new_empty(max(numel, NUMBERS), dtype=dtype)
        return self.kept[name][:numel].view(shape)

    def later(self, count: int) -> Tensor:
        """(R, R) true where the key comes after the query, made once."""
        if count not in self.kept:
            self.kept[count] = torch.ones(count, count, dtype=torch.bool, device=self.like.device).triu_(1)
        return self.kept[count]


class _Problem(NamedTuple):
    """What every block needs to know. q, k, v: (X, L or T, K).  document: (X, T).  quota: (X or 1, L)."""

    q: Tensor
    k: Tensor
    v: Tensor
    document: Tensor | None
    quota: Tensor

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """Rows of X, query rows, and how many keys they may read."""
        count, length, past = len(self.q), self.q.shape[1], self.k.shape[1] - self.q.shape[1]
        for start in range(0, length, ROWS):
            end = min(start + ROWS, length)
            together = max(1, NUMBERS // ((end - start) * (past + end)))
            for x in range(0, count, together):
                yield slice(x, min(x + together, count)), slice(start, end), past + end

    def survivors(
        self, x: slice, queries: slice, keys: int, workspace: _Workspace
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(X, R, A) the keys each query of the block keeps, their weights, and which places are past its
        quota, with weight zero.
        """
        q_XRK = self.q[x, queries]
        score_XRN = torch.bmm(q_XRK, self.k[x, :keys].mT, out=workspace("score", *q_XRK.shape[:2], keys))
        quota_XR = self.quota[x if len(self.quota) > 1 else slice(None), queries].expand(len(q_XRK), -1)
        document_XN = None if self.document is None else self.document[x, :keys]
        index_XRA, dropped_XRA = _largest(score_XRN, document_XN, quota_XR[..., None], workspace)
        kept_XRA = (
            score_XRN.gather(-1, index_XRA)
            .mul_(1 / math.sqrt(q_XRK.shape[2]))
            .masked_fill_(dropped_XRA, -math.inf)
        )
        return index_XRA, kept_XRA.softmax(-1), dropped_XRA


def _largest(
    score_XRN: Tensor, document_XN: Tensor | None, quota_XR1: Tensor, workspace: _Workspace
) -> tuple[Tensor, Tensor]:
    """(X, R, A) where the largest scores of each row stand, in no order, and which of these its own quota
    drops.

    A is the largest quota, or more where magnitudes tie at that bar: what ties with the last that a row keeps
    is kept.
    """
    rows, keys, most = score_XRN.shape[:2], score_XRN.shape[2], int(quota_XR1.max())
    size_XRN = _magnitudes(score_XRN, document_XN, workspace)
    if size_XRN.device.type == "cpu":
        bits = size_XRN.numpy().view(f"int{8 * size_XRN.itemsize}")
        bits.partition(keys - most, axis=-1)
        largest = np.sort(bits[..., keys - most :], axis=-1)
        largest_XRA = torch.from_numpy(largest).view(size_XRN.dtype)
        size_XRN = _magnitudes(score_XRN, document_XN, workspace)
        reaches_XRN = workspace("reaches", *size_XRN.shape, dtype=torch.bool)
        # By their bits again: what may not be read is negative, and negative floats stand in another order.
        # So each row has `most` or more.
        np.greater_equal(size_XRN.numpy().view(bits.dtype), largest[..., :1], out=reaches_XRN.numpy())
        place = torch.from_numpy(np.flatnonzero(reaches_XRN.numpy()))
    else:
        largest_XRA = size_XRN.topk(most).values.flip(-1)
        reaches_XRN = size_XRN >= largest_XRA[..., :1]
        place = reaches_XRN.flatten().nonzero()[:, 0]
    bar_XR1 = largest_XRA.gather(-1, most - quota_XR1)
    if len(place) == rows.numel() * most:
        index_XRA = place.view(*rows, most)
        index_XRA -= torch.arange(0, size_XRN.numel(), keys, device=place.device).view(*rows, 1)
    else:
        # a tie, in about one row of 100,000; and in the first block, whose first rows have fewer keys than
        # the others keep
        index_XRA = size_XRN.topk(int(reaches_XRN.sum(-1).max()), sorted=False).indices
    return index_XRA, size_XRN.gather(-1, index_XRA) < bar_XR1


def _magnitudes(score_XRN: Tensor, document_XN: Tensor | None, workspace: _Workspace) -> Tensor:
    """(X, R, N) |score|; what may not be read lies below all."""
    count, keys = score_XRN.shape[1:]
    size_XRN = torch.abs(score_XRN, out=workspace("size", *score_XRN.shape))
    if count > 1:
        size_XRN[..., keys - count :].masked_fill_(workspace.later(count), -1.0)
    # each at a place of its own: were these alike, rows with few keys would end in a tie
    if document_XN is not None:
        below_N = torch.arange(-1, -1 - keys, -1, dtype=size_XRN.dtype, device=size_XRN.device)
        torch.where(
            document_XN[:, keys - count :, None] != document_XN[:, None], below_N, size_XRN, out=size_XRN
        )
    return size_XRN


def _weighted(value_XTK: Tensor, index_XRA: Tensor, weight_XRA: Tensor) -> Tensor:
    """(X, R, K) sums of the rows named, times their weights: read where they lie, without a gathered copy.

    Rows as `_as_table` leaves them.
    """
    count, keys, channels = value_XTK.shape
    apart = value_XTK.stride(0) // channels
    table = value_XTK.as_strided(((count - 1) * apart + keys, channels), (channels, 1))
    place_XRA = (
        index_XRA + torch.arange(0, count * apart, apart, device=index_XRA.device)[:, None, None]
        if count > 1
        else index_XRA
    )
    sums = F.embedding_bag(
        place_XRA.flatten(0, 1), table, mode="sum", per_sample_weights=weight_XRA.flatten(0, 1)
    )
    return sums.view(*index_XRA.shape[:2], channels)


def _as_table(value_XTK: Tensor) -> Tensor:
    """The same with the rows of each x one behind the other, as a cache has them; parts of a wider tensor are
    copied.
    """
    channels = value_XTK.shape[2]
    in_place = value_XTK.stride()[1:] == (channels, 1) and value_XTK.stride(0) % channels == 0
    return value_XTK if in_place else value_XTK.contiguous()


def _forward(problem: _Problem) -> tuple[Tensor, Tensor]:
    """(X, L, K) what is read, and (X, L) how many keys each query kept."""
    y_XLK = torch.empty(problem.q.shape, dtype=problem.q.dtype, device=problem.q.device)
    kept_XL = torch.empty(problem.q.shape[:2], dtype=torch.int32, device=problem.q.device)
    workspace = _Workspace(problem.q)
    for x, queries, keys in problem.blocks():
        index_XRA, weight_XRA, dropped_XRA = problem.survivors(x, queries, keys, workspace)
        kept_XL[x, queries] = index_XRA.shape[2] - dropped_XRA.sum(-1, dtype=torch.int32)
        y_XLK[x, queries] = _weighted(problem.v[x, :keys], index_XRA, weight_XRA)
    return y_XLK, kept_XL


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *problem: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*problem)
        y_XLK, kept_XL = _forward(_Problem(*problem))
        ctx.mark_non_differentiable(kept_XL)
        return y_XLK, kept_XL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_XLK: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        problem = _Problem(*ctx.saved_tensors)
        grad_q = torch.empty(problem.q.shape, dtype=grad_XLK.dtype, device=grad_XLK.device)
        grad_k, grad_v = (
            torch.zeros(problem.k.shape, dtype=grad_XLK.dtype, device=grad_XLK.device) for _ in range(2)
        )
        workspace = _Workspace(grad_XLK)
        for x, queries, keys in problem.blocks():
            q_XRK, g_XRK, k_XNK, v_XNK = (
                problem.q[x, queries],
                grad_XLK[x, queries],
                problem.k[x, :keys],
                problem.v[x, :keys],
            )
            index_XRA, weight_XRA, _ = problem.survivors(x, queries, keys, workspace)
            dense_XRN = torch.bmm(g_XRK, v_XNK.mT, out=workspace("score", *g_XRK.shape[:2], keys))
            of_weight_XRA = dense_XRN.gather(-1, index_XRA)
            of_score_XRA = (of_weight_XRA - (of_weight_XRA * weight_XRA).sum(-1, keepdim=True)).mul_(
                weight_XRA
            )
            of_score_XRA /= math.sqrt(q_XRK.shape[-1])
            grad_q[x, queries] = _weighted(k_XNK, index_XRA, of_score_XRA)
            # Back to the keys, which many queries share: a product of mostly zeros is faster on a CPU than
            # adding row by row.
            grad_k[x, :keys].baddbmm_(dense_XRN.zero_().scatter_(-1, index_XRA, of_score_XRA).mT, q_XRK)
            grad_v[x, :keys].baddbmm_(dense_XRN.scatter_(-1, index_XRA, weight_XRA).mT, g_XRK)
        return grad_q, grad_k, grad_v, None, None


# a loop whose shapes depend on the data
@torch.compiler.disable
def magnitude_blocks(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """As `magnitude_attention.magnitude_attention`. Computes in float32, or float64 for float64."""
    wide, rows = torch.promote_types(q_BHLK.dtype, torch.float32), q_BHLK.shape[:2]
    q_XLK, k_XTK, v_XTK = (t.to(wide).flatten(0, 1) for t in (q_BHLK, k_BHTK, v_BHTK))
    k_XTK, v_XTK = _as_table(k_XTK), _as_table(v_XTK)
    quota_BL = quotas(reach(document_BT, q_XLK.shape[1], k_XTK.shape[1], q_BHLK.device), keep, floor)
    if document_BT is None:
        problem = _Problem(q_XLK, k_XTK, v_XTK, None, quota_BL)
    else:
        problem = _Problem(
            q_XLK, k_XTK, v_XTK, *(t.repeat_interleave(rows[1], 0) for t in (document_BT, quota_BL))
        )
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (q_XLK, k_XTK, v_XTK))
    y_XLK, kept_XL = _Blocks.apply(*problem) if learning else _forward(problem)
    return y_XLK.unflatten(0, rows).to(q_BHLK.dtype), kept_XL.unflatten(0, rows)
