"""Attention in which each query keeps only its largest-magnitude scores: V1's sparse attention, exact reference.

Legend: B batch, H heads, L queries, T keys, K channels a head.
"""

import math

import torch
from torch import Tensor


def magnitude_attention(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, allowed_BLT: Tensor, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """Softmax over the `keep` share of each query's allowed scores that is largest in magnitude, at least `floor` (or all there are).

    `allowed` (B or 1, L, T) is true where query l may see key t: itself and the past, in its own document. Returns the values
    read (B, H, L, K) and the mask of kept keys (B, H, L, T). Scores the full L x T matrix: time and memory grow with both.
    """
    score_BHLT = torch.matmul(q_BHLK, k_BHTK.mT) / math.sqrt(q_BHLK.shape[-1])
    allowed_BHLT = allowed_BLT[:, None]
    magnitude = score_BHLT.detach().abs().masked_fill(~allowed_BHLT, -1.0)
    # In exact arithmetic 0.05 * 20 is 1, not a hair above it: hence the margin below the ceiling.
    quota_BL = torch.ceil(allowed_BLT.sum(-1) * keep - 1e-6).long().clamp(min=floor).clamp(max=k_BHTK.shape[2])
    largest = magnitude.topk(int(quota_BL.max()), dim=-1).values
    bar = largest.gather(-1, (quota_BL - 1)[:, None, :, None].expand(*largest.shape[:3], 1))
    kept_BHLT = (magnitude >= bar) & allowed_BHLT
    weight = torch.softmax(score_BHLT.masked_fill(~kept_BHLT, float("-inf")), -1)
    return torch.matmul(weight, v_BHTK), kept_BHLT
