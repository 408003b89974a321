"""Attention in which each query keeps only its largest-magnitude scores: V1's sparse attention.

The reference holds the L x T scores; `magnitude_blocks.py` works through them in blocks that stay in the
cache, `magnitude_triton.py` on a GPU. All keep the same keys: those whose |score| reaches the query's
quota-th largest, ties at that bar included, so that nothing depends on an order.

Which keys a query may read is told by one number a key, its document: keys of the query's own document up to
the query's place. Padding has numbers of its own (`model/sequence_layout.py`), so it reads itself alone.

Legend: B batch, H heads, L queries (the last L of the T tokens), T keys, K channels a head.
"""

import math

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.scan.backends import on_gpu, why_not_ours

# Scores, as those of one query in 8 heads with 1,024 keys, where the reference takes 0.8 of the blocks' time;
# at 256 keys 0.5, at 4,096 1.8.
FEW = 2**13


def magnitude_attention(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """Softmax over the `keep` share of each query's allowed scores that is largest in magnitude, at least
    `floor` (or all there are).

    `document` None: every row is one document. Returns the values read (B, H, L, K), in q's type (or
    autocast's), and how many keys each query kept (B, H, L), more than its quota only where scores tie.
    Differentiable in q, k and v through the keys kept; which these are has no gradient.
    """
    # a step of generation, which the compiler can fuse
    fused = torch.compiler.is_compiling() and q_BHLK.shape[2] == 1
    if fused or _few(q_BHLK, k_BHTK):
        return reference(q_BHLK, k_BHTK, v_BHTK, document_BT, keep, floor)
    return _PATHS[dispatch.select("magnitude_attention", q_BHLK)](
        q_BHLK, k_BHTK, v_BHTK, document_BT, keep, floor
    )


def _few(q_BHLK: Tensor, k_BHTK: Tensor) -> bool:
    """Whether the scores of a step of generation, or of a few tokens, are so few on a CPU that the blocks'
    own bookkeeping would take longer than all else.
    """
    plain = q_BHLK.device.type == "cpu" and dispatch.forced_by_env("magnitude_attention") is None
    return plain and not torch.is_grad_enabled() and q_BHLK.shape[:3].numel() * k_BHTK.shape[2] <= FEW


def reference(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """The definition: scores the full L x T matrix; time and memory grow with both."""
    length, keys = q_BHLK.shape[2], k_BHTK.shape[2]
    place_T = torch.arange(keys, device=q_BHLK.device)
    allowed_BHLT = (place_T <= place_T[keys - length :, None])[None, None]
    if document_BT is not None:
        allowed_BHLT = (
            allowed_BHLT & (document_BT[:, keys - length :, None] == document_BT[:, None, :])[:, None]
        )
    score_BHLT = torch.matmul(q_BHLK, k_BHTK.mT)
    magnitude_BHLT = score_BHLT.detach().abs().masked_fill(~allowed_BHLT, -1.0)
    quota_BL = quotas(reach(document_BT, length, keys, q_BHLK.device), keep, floor)
    largest = magnitude_BHLT.topk(int(quota_BL.max()), dim=-1).values
    bar = largest.gather(-1, (quota_BL - 1)[:, None, :, None].expand(*largest.shape[:3], 1))
    kept_BHLT = (magnitude_BHLT >= bar) & allowed_BHLT
    score_BHLT = score_BHLT / math.sqrt(q_BHLK.shape[-1])
    weight = torch.softmax(score_BHLT.masked_fill(~kept_BHLT, float("-inf")), -1)
    return torch.matmul(weight, v_BHTK), kept_BHLT.sum(-1, dtype=torch.int32)


def reach(document_BT: Tensor | None, length: int, keys: int, device: torch.device) -> Tensor:
    """(B or 1, L) how many keys each of the last `length` tokens may read: those of its document up to
    itself, wherever they stand.
    """
    place_BT = torch.arange(keys, device=device)[None]
    if document_BT is None:
        return place_BT[:, keys - length :] + 1
    by_document_BT, order_BT = document_BT.sort(dim=1, stable=True)
    first_BT = torch.ones_like(by_document_BT, dtype=torch.bool)
    first_BT[:, 1:] = by_document_BT.diff(dim=1) != 0
    start_BT = (place_BT * first_BT).cummax(1).values
    return torch.empty_like(order_BT).scatter_(1, order_BT, place_BT - start_BT + 1)[:, keys - length :]


def quotas(reach_BL: Tensor, keep: float, floor: int) -> Tensor:
    """(B or 1, L) how many keys each query keeps: `keep` of those it may read, rounded up, and at least
    `floor` of them.
    """
    # In exact arithmetic 0.05 * 20 is 1, not a hair above it: hence the margin.
    wanted_BL = torch.ceil(reach_BL.double() * keep - 1e-6).long()
    return torch.minimum(wanted_BL.clamp(min=floor), reach_BL)


def _blocks(*args) -> tuple[Tensor, Tensor]:
    from braingpt.kernels.sparse_attention.blocks import magnitude_blocks

    return magnitude_blocks(*args)


def _triton(q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, *args) -> tuple[Tensor, Tensor]:
    """In autocast's type, as torch's own attention: norms hand over float32."""
    from braingpt.kernels.sparse_attention.triton_kernels import magnitude_triton

    if torch.is_autocast_enabled(q_BHLK.device.type):
        q_BHLK, k_BHTK, v_BHTK = (
            t.to(torch.get_autocast_dtype(t.device.type)) for t in (q_BHLK, k_BHTK, v_BHTK)
        )
    return magnitude_triton(q_BHLK, k_BHTK, v_BHTK, *args)


_PATHS = {"triton": _triton, "blocks": _blocks, "torch": reference}


def _for_triton(q_BHLK: Tensor) -> bool:
    """A single query has nothing to share a block with."""
    return on_gpu(q_BHLK) and q_BHLK.shape[2] > 1


dispatch.register(
    "magnitude_attention",
    (
        "triton",
        lambda: why_not_ours("braingpt.kernels.sparse_attention.triton_kernels", "magnitude_triton"),
        _for_triton,
    ),
    ("blocks", dispatch.anywhere),
    ("torch", dispatch.anywhere),
)
