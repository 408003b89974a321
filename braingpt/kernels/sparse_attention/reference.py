"""Sparse attention by its definition: the full matrix of scores, of which each query keeps its largest.

Legend: B batch, H heads, L queries (the last L of the T tokens), T keys, K channels a head.
"""

import math

import torch
from torch import Tensor

from braingpt.kernels.sparse_attention.quotas import quotas, reach


def reference(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """As `sparse_attention.magnitude_attention`; time and memory grow with L x T."""
    length, keys = q_BHLK.shape[2], k_BHTK.shape[2]
    place_T = torch.arange(keys, device=q_BHLK.device)
    allowed_BHLT = (place_T <= place_T[keys - length :, None])[None, None]
    if document_BT is not None:
        same_document_BLT = document_BT[:, keys - length :, None] == document_BT[:, None, :]
        allowed_BHLT = allowed_BHLT & same_document_BLT[:, None]
    score_BHLT = torch.matmul(q_BHLK, k_BHTK.mT)
    magnitude_BHLT = score_BHLT.detach().abs().masked_fill(~allowed_BHLT, -1.0)
    quota_BL = quotas(reach(document_BT, length, keys, q_BHLK.device), keep, floor)
    largest = magnitude_BHLT.topk(int(quota_BL.max()), dim=-1).values
    threshold = largest.gather(-1, (quota_BL - 1)[:, None, :, None].expand(*largest.shape[:3], 1))
    kept_BHLT = (magnitude_BHLT >= threshold) & allowed_BHLT
    score_BHLT = score_BHLT / math.sqrt(q_BHLK.shape[-1])
    weight = torch.softmax(score_BHLT.masked_fill(~kept_BHLT, float("-inf")), -1)
    return torch.matmul(weight, v_BHTK), kept_BHLT.sum(-1, dtype=torch.int32)
