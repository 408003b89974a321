"""Sparse attention on a CPU, in blocks of query rows that stay in the cache.

Nothing of L x T is ever held, forward or backward.
Of each block only the scores are computed densely, because the largest are not known without them.
Partial sorting then names each row's survivors, and softmax, values and the queries' gradient only touch
these few.
The backward pass scores and chooses each block again.

Survivors are chosen by the bits of |score|: as integers these are in the order of the floats that are not
negative, and below them for the others.
NumPy partially sorts them with vector instructions: 0.5 ms with the search for who reaches the threshold,
where `torch.topk` takes 2.7 (256 rows of 1,024 scores, one core, AVX2).

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

from braingpt.kernels.sparse_attention.quotas import quotas, reach
from braingpt.kernels.uncompiled import uncompiled

# Query rows of a block.
ROWS = 64
# Scores of a block, about.
SCORES = 2**18


class _Workspace:
    """Buffers by name, used again for every block so that they stay in the cache."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[str, Tensor] = {}
        self.after_query_masks: dict[int, Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        numel = math.prod(shape)
        if name not in self.buffers or self.buffers[name].numel() < numel:
            self.buffers[name] = self.like.new_empty(max(numel, SCORES), dtype=dtype)
        return self.buffers[name][:numel].view(shape)

    def after_query(self, count: int) -> Tensor:
        """(R, R) true where the key comes after the query, made once."""
        if count not in self.after_query_masks:
            ones = torch.ones(count, count, dtype=torch.bool, device=self.like.device)
            self.after_query_masks[count] = ones.triu_(1)
        return self.after_query_masks[count]


class _Problem(NamedTuple):
    """What every block reads."""

    # (X, L, K)
    q: Tensor
    # (X, T, K)
    k: Tensor
    # (X, T, K)
    v: Tensor
    # (X, T), or None where every row is one document.
    document: Tensor | None
    # (X or 1, L)
    quota: Tensor

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """Rows of X, query rows, and how many keys they may read."""
        count, length, past = len(self.q), self.q.shape[1], self.k.shape[1] - self.q.shape[1]
        for start in range(0, length, ROWS):
            end = min(start + ROWS, length)
            rows_at_once = max(1, SCORES // ((end - start) * (past + end)))
            for x in range(0, count, rows_at_once):
                yield slice(x, min(x + rows_at_once, count)), slice(start, end), past + end

    def survivors(
        self, x: slice, queries: slice, keys: int, workspace: _Workspace
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(X, R, A) the keys each query of the block keeps, their weights, and which entries its quota drops.

        Dropped entries have weight zero.
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
    """(X, R, A) indices of each row's largest scores, in no order, and which of these its own quota drops.

    A is the largest quota, or more where magnitudes tie at that threshold: what ties with the last that a row
    keeps is kept.
    """
    rows, keys, largest_quota = score_XRN.shape[:2], score_XRN.shape[2], int(quota_XR1.max())
    size_XRN = _magnitudes(score_XRN, document_XN, workspace)
    if size_XRN.device.type == "cpu":
        bits = size_XRN.numpy().view(f"int{8 * size_XRN.itemsize}")
        bits.partition(keys - largest_quota, axis=-1)
        largest = np.sort(bits[..., keys - largest_quota :], axis=-1)
        largest_XRA = torch.from_numpy(largest).view(size_XRN.dtype)
        size_XRN = _magnitudes(score_XRN, document_XN, workspace)
        reaches_XRN = workspace("reaches", *size_XRN.shape, dtype=torch.bool)
        # Compared by their bits again: what may not be read is negative, and negative floats are in another
        # order. So each row has `largest_quota` or more.
        np.greater_equal(size_XRN.numpy().view(bits.dtype), largest[..., :1], out=reaches_XRN.numpy())
        flat_index = torch.from_numpy(np.flatnonzero(reaches_XRN.numpy()))
    else:
        largest_XRA = size_XRN.topk(largest_quota).values.flip(-1)
        reaches_XRN = size_XRN >= largest_XRA[..., :1]
        flat_index = reaches_XRN.flatten().nonzero()[:, 0]
    threshold_XR1 = largest_XRA.gather(-1, largest_quota - quota_XR1)
    if len(flat_index) == rows.numel() * largest_quota:
        index_XRA = flat_index.view(*rows, largest_quota)
        index_XRA -= torch.arange(0, size_XRN.numel(), keys, device=flat_index.device).view(*rows, 1)
    else:
        # A tie, in about one row of 100,000; and the first block, whose first rows have fewer keys than the
        # others keep.
        index_XRA = size_XRN.topk(int(reaches_XRN.sum(-1).max()), sorted=False).indices
    return index_XRA, size_XRN.gather(-1, index_XRA) < threshold_XR1


def _magnitudes(score_XRN: Tensor, document_XN: Tensor | None, workspace: _Workspace) -> Tensor:
    """(X, R, N) |score|; what may not be read is below all scores."""
    count, keys = score_XRN.shape[1:]
    size_XRN = torch.abs(score_XRN, out=workspace("size", *score_XRN.shape))
    if count > 1:
        size_XRN[..., keys - count :].masked_fill_(workspace.after_query(count), -1.0)
    # Each key that may not be read gets a value of its own: equal ones would make a tie of every short row.
    if document_XN is not None:
        below_N = torch.arange(-1, -1 - keys, -1, dtype=size_XRN.dtype, device=size_XRN.device)
        torch.where(
            document_XN[:, keys - count :, None] != document_XN[:, None], below_N, size_XRN, out=size_XRN
        )
    return size_XRN


def _weighted(value_XTK: Tensor, index_XRA: Tensor, weight_XRA: Tensor) -> Tensor:
    """(X, R, K) weighted sums of the indexed rows, not gathered first; `value` is from `_as_table`."""
    count, keys, channels = value_XTK.shape
    row_stride = value_XTK.stride(0) // channels
    table = value_XTK.as_strided(((count - 1) * row_stride + keys, channels), (channels, 1))
    table_index_XRA = (
        index_XRA + torch.arange(0, count * row_stride, row_stride, device=index_XRA.device)[:, None, None]
        if count > 1
        else index_XRA
    )
    sums = F.embedding_bag(
        table_index_XRA.flatten(0, 1), table, mode="sum", per_sample_weights=weight_XRA.flatten(0, 1)
    )
    return sums.view(*index_XRA.shape[:2], channels)


def _as_table(value_XTK: Tensor) -> Tensor:
    """The same tensor with contiguous rows, as a cache has them; a part of a wider tensor is copied."""
    channels = value_XTK.shape[2]
    is_table = value_XTK.stride()[1:] == (channels, 1) and value_XTK.stride(0) % channels == 0
    return value_XTK if is_table else value_XTK.contiguous()


def _forward(problem: _Problem) -> tuple[Tensor, Tensor]:
    """(X, L, K) outputs, and (X, L) how many keys each query kept."""
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
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, document: Tensor | None, quota: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, v, document, quota)
        y_XLK, kept_XL = _forward(_Problem(q, k, v, document, quota))
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
            q_XRK, g_XRK = problem.q[x, queries], grad_XLK[x, queries]
            k_XNK, v_XNK = problem.k[x, :keys], problem.v[x, :keys]
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


# A loop whose shapes depend on the data: nothing to compile.
@uncompiled
def magnitude_blocks(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """As `sparse_attention.magnitude_attention`; computes in float32, or float64 for float64."""
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
