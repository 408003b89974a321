"""Sparse attention on NVIDIA GPUs (Ampere and later), as an operator that torch.compile keeps whole.

One kernel runs forward and two run backward; none holds more than a block of scores.
`triton_kernels.py` has the kernels and says how they choose the keys.

Under TRITON_INTERPRET=1, set before triton is imported, the same kernels run on CPU tensors, slowly: for
tests.

Legend: B batch, H heads, L queries, T keys, K channels a head.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from braingpt.kernels.launch import launch
from braingpt.kernels.sparse_attention import triton_kernels as kernels
from braingpt.kernels.sparse_attention.quotas import quotas, reach

# Query rows and keys of a block, by bytes a number: what registers and shared memory hold.
BLOCK = {2: 64, 4: 32}
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def magnitude_triton(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """As `sparse_attention.magnitude_attention`, for float32, bfloat16 and float16.

    Scores and sums are float32.

    Raises:
        ValueError: q has another type.
    """
    if q_BHLK.dtype not in TYPES:
        raise ValueError(
            f"the Triton kernel computes in float32, bfloat16 and float16, not in {q_BHLK.dtype}"
        )
    batch, _, length, _ = q_BHLK.shape
    reach_BL = reach(document_BT, length, k_BHTK.shape[2], q_BHLK.device)
    quota_BL = quotas(reach_BL, keep, floor).int().expand(batch, -1).contiguous()
    document_BT = None if document_BT is None else document_BT.int().contiguous()
    y_BHLK, kept_BHL, _, _ = _attend(
        q_BHLK, k_BHTK.to(q_BHLK.dtype), v_BHTK.to(q_BHLK.dtype), document_BT, quota_BL
    )
    return y_BHLK, kept_BHL


def _specialisation(
    q_BHLK: Tensor, k_BHTK: Tensor, document_BT: Tensor | None
) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Heads, queries and keys, and what the kernels are specialised on."""
    channels, is_interpreted = q_BHLK.shape[3], knobs.runtime.interpret
    # The interpreter multiplies the bits of bfloat16. On a GPU, float32 keeps its precision (three TF32
    # products) unless torch may drop it.
    needs_float32 = is_interpreted and q_BHLK.dtype == torch.bfloat16
    meta = {
        "K": channels,
        "C": max(16, triton.next_power_of_2(channels)),
        "M": BLOCK[q_BHLK.element_size()],
        "N": BLOCK[q_BHLK.element_size()],
        "SCALE": channels**-0.5,
        "DOCUMENTS": document_BT is not None,
        "DOT": tl.float32 if needs_float32 else TYPES[q_BHLK.dtype],
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3",
    }
    return (q_BHLK.shape[1], q_BHLK.shape[2], k_BHTK.shape[2]), meta


def _strided(tensor: Tensor) -> tuple[Tensor, int, int, int]:
    """A tensor of four dimensions and its strides but the last, which is 1."""
    tensor = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
    first, second, third, _ = tensor.stride()
    return tensor, first, second, third


@torch.library.custom_op("braingpt::magnitude_attention", mutates_args=())
def _attend(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, quota_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, keys kept, thresholds (their bits) and logarithms of the softmax's sums."""
    sizes, meta = _specialisation(q_BHLK, k_BHTK, document_BT)
    y_BHLK = torch.empty(q_BHLK.shape, dtype=q_BHLK.dtype, device=q_BHLK.device)
    kept_BHL, threshold_BHL = (
        torch.empty(q_BHLK.shape[:3], dtype=torch.int32, device=q_BHLK.device) for _ in range(2)
    )
    log_sum_BHL = torch.empty(q_BHLK.shape[:3], dtype=torch.float32, device=q_BHLK.device)
    # Triton launches on the current device.
    with torch.cuda.device_of(q_BHLK):
        launch(
            kernels.forward,
            (triton.cdiv(sizes[1], meta["M"]), q_BHLK.shape[0] * sizes[0]),
            *_strided(q_BHLK),
            *_strided(k_BHTK),
            *_strided(v_BHTK),
            document_BT,
            quota_BL,
            *_strided(y_BHLK),
            kept_BHL,
            threshold_BHL,
            log_sum_BHL,
            *sizes,
            **meta,
        )
    return y_BHLK, kept_BHL, threshold_BHL, log_sum_BHL


@_attend.register_fake
def _(q_BHLK, k_BHTK, v_BHTK, document_BT, quota_BL):
    kept, threshold = (q_BHLK.new_empty(q_BHLK.shape[:3], dtype=torch.int32) for _ in range(2))
    log_sum = q_BHLK.new_empty(q_BHLK.shape[:3], dtype=torch.float32)
    return q_BHLK.new_empty(q_BHLK.shape), kept, threshold, log_sum


@torch.library.custom_op("braingpt::magnitude_attention_backward", mutates_args=())
def _attend_backward(
    grad_BHLK: Tensor,
    y_BHLK: Tensor,
    threshold_BHL: Tensor,
    log_sum_BHL: Tensor,
    q_BHLK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    document_BT: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    sizes, meta = _specialisation(q_BHLK, k_BHTK, document_BT)
    grad_q, grad_k, grad_v = (
        torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q_BHLK, k_BHTK, v_BHTK)
    )
    # What the softmax's backward pass takes off every score's gradient.
    along_BHL = (grad_BHLK.float() * y_BHLK.float()).sum(-1)
    inputs = (
        *_strided(q_BHLK),
        *_strided(k_BHTK),
        *_strided(v_BHTK),
        document_BT,
        *_strided(grad_BHLK),
        threshold_BHL,
        log_sum_BHL,
        along_BHL,
    )
    programs = q_BHLK.shape[0] * sizes[0]
    with torch.cuda.device_of(q_BHLK):
        query_blocks, key_blocks = triton.cdiv(sizes[1], meta["M"]), triton.cdiv(sizes[2], meta["N"])
        launch(kernels.grad_queries, (query_blocks, programs), *inputs, *_strided(grad_q), *sizes, **meta)
        launch(
            kernels.grad_keys,
            (key_blocks, programs),
            *inputs,
            *_strided(grad_k),
            *_strided(grad_v),
            *sizes,
            **meta,
        )
    return grad_q, grad_k, grad_v


@_attend_backward.register_fake
def _(grad_BHLK, y_BHLK, threshold_BHL, log_sum_BHL, q_BHLK, k_BHTK, v_BHTK, document_BT):
    return q_BHLK.new_empty(q_BHLK.shape), k_BHTK.new_empty(k_BHTK.shape), v_BHTK.new_empty(v_BHTK.shape)


def _save(ctx, inputs, output) -> None:
    q_BHLK, k_BHTK, v_BHTK, document_BT, _ = inputs
    y_BHLK, kept_BHL, threshold_BHL, log_sum_BHL = output
    ctx.mark_non_differentiable(kept_BHL, threshold_BHL, log_sum_BHL)
    ctx.save_for_backward(y_BHLK, threshold_BHL, log_sum_BHL, q_BHLK, k_BHTK, v_BHTK, document_BT)


def _gradients(ctx, grad_BHLK: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(grad_BHLK, *ctx.saved_tensors), None, None


_attend.register_autograd(_gradients, setup_context=_save)
