"""Attention in which each query keeps only the scores of largest magnitude: V1's sparse attention.

`reference.py` holds the L x T scores; `blocks.py` works through them in blocks that stay in a CPU's cache,
and `triton_ops.py` in blocks on a GPU.
All keep the same keys: those whose |score| reaches the query's quota-th largest.
Keys that tie at this threshold are all kept, so nothing depends on an order.

A number for each key, its document, says who may read it: a query reads the keys of its own document up to
itself.
Padding has numbers of its own (`model/sequence_layout.py`), so it reads itself alone.

Legend: B batch, H heads, L queries (the last L of the T tokens), T keys, K channels a head.
"""

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.dispatch import Backend, OptionalFunction
from braingpt.kernels.sparse_attention.blocks import magnitude_blocks
from braingpt.kernels.sparse_attention.reference import reference

_magnitude_triton = OptionalFunction("braingpt.kernels.sparse_attention.triton_ops", "magnitude_triton")
# Scores up to which a CPU takes the reference: as many as one query has in 8 heads with 1,024 keys, where
# the reference takes 0.8 of the blocks' time (at 256 keys 0.5, at 4,096 keys 1.8).
FEW_SCORES = 2**13


def magnitude_attention(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """Softmax attention over each query's allowed scores of largest magnitude.

    Differentiable in q, k and v through the keys that are kept; which keys these are has no gradient.

    Args:
        q_BHLK: Queries, the last L tokens of the row.
        k_BHTK: Keys.
        v_BHTK: Values.
        document_BT: Number of each key's document; None where every row is one document.
        keep: Share of a query's allowed keys that is kept, rounded up.
        floor: Keys that are kept at least, where there are so many.

    Returns:
        Outputs (B, H, L, K) in q's type (or autocast's), and how many keys each query kept (B, H, L), which
        is above its quota only where scores tie.
    """
    # A step of generation is fused by the compiler.
    compiled_step = torch.compiler.is_compiling() and q_BHLK.shape[2] == 1
    if compiled_step or _has_few_scores(q_BHLK, k_BHTK):
        return reference(q_BHLK, k_BHTK, v_BHTK, document_BT, keep, floor)
    implementation = _IMPLEMENTATIONS[dispatch.select("magnitude_attention", q_BHLK)]
    return implementation(q_BHLK, k_BHTK, v_BHTK, document_BT, keep, floor)


def _has_few_scores(q_BHLK: Tensor, k_BHTK: Tensor) -> bool:
    """Whether a CPU has so few scores to compute that the blocks' own bookkeeping would take longer."""
    unforced_cpu = q_BHLK.device.type == "cpu" and dispatch.forced_by_env("magnitude_attention") is None
    if not unforced_cpu or torch.is_grad_enabled():
        return False
    return q_BHLK.shape[:3].numel() * k_BHTK.shape[2] <= FEW_SCORES


def _triton(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """In autocast's type, as torch's own attention computes: norms hand over float32."""
    if torch.is_autocast_enabled(q_BHLK.device.type):
        dtype = torch.get_autocast_dtype(q_BHLK.device.type)
        q_BHLK, k_BHTK, v_BHTK = q_BHLK.to(dtype), k_BHTK.to(dtype), v_BHTK.to(dtype)
    return _magnitude_triton(q_BHLK, k_BHTK, v_BHTK, document_BT, keep, floor)


_IMPLEMENTATIONS = {"triton": _triton, "blocks": magnitude_blocks, "torch": reference}


def _triton_supports(q_BHLK: Tensor) -> bool:
    """A single query has nothing to share a block with."""
    return dispatch.runs_on_gpu(q_BHLK) and q_BHLK.shape[2] > 1


dispatch.register(
    "magnitude_attention",
    Backend("triton", _magnitude_triton.triton_unavailable_reason, _triton_supports),
    Backend("blocks"),
    Backend("torch"),
)
