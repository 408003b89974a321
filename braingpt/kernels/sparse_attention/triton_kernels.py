"""Magnitude attention on NVIDIA GPUs (Ampere and later): one kernel forward, two backward, none of which
holds more than a block of scores.

A row's bar, the quota-th largest |score|, is found bit by bit: the bits of floats that are not negative lie
in their order, so each pass over the keys scores them again, counts who reaches three candidates, and settles
two bits. A block stops as soon as the count of each of its rows is its quota, mostly some passes before the
16th. Softmax and values then are one more pass (Dao et al. 2022), and the backward pass knows the bars. All
kernels score in the same blocks by the same product, so that what is kept is the same to the bit.

Under TRITON_INTERPRET=1, set before triton is imported, the same kernels run on CPU tensors, slowly: for
tests.

Legend: B batch, H heads, L queries, T keys, K channels a head; in kernels M query rows and N keys of a block,
C channels rounded up.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from braingpt.kernels.launch import launch
from braingpt.kernels.sparse_attention.reference import quotas, reach

# query rows and keys of a block, by bytes a number: what registers and shared memory hold
BLOCK = {2: 64, 4: 32}
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def magnitude_triton(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, keep: float, floor: int
) -> tuple[Tensor, Tensor]:
    """As `magnitude_attention.magnitude_attention`, for float32, bfloat16 and float16.

    Scores and sums are float32.
    """
    if q_BHLK.dtype not in TYPES:
        raise ValueError(
            f"the Triton kernel computes in float32, bfloat16 and float16, not in {q_BHLK.dtype}"
        )
    batch, _, length, _ = q_BHLK.shape
    quota_BL = (
        quotas(reach(document_BT, length, k_BHTK.shape[2], q_BHLK.device), keep, floor)
        .int()
        .expand(batch, -1)
        .contiguous()
    )
    document_BT = None if document_BT is None else document_BT.int().contiguous()
    y_BHLK, kept_BHL, _, _ = _attend(
        q_BHLK, k_BHTK.to(q_BHLK.dtype), v_BHTK.to(q_BHLK.dtype), document_BT, quota_BL
    )
    return y_BHLK, kept_BHL


def _launch(
    q_BHLK: Tensor, k_BHTK: Tensor, document_BT: Tensor | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Sizes, and what the kernels are specialised on."""
    channels, interpreted = q_BHLK.shape[3], triton.knobs.runtime.interpret
    # The interpreter multiplies the bits of bfloat16. On a GPU, float32 keeps its precision (three TF32
    # products) unless torch may drop it.
    wide = interpreted and q_BHLK.dtype == torch.bfloat16
    meta = {
        "K": channels,
        "C": max(16, triton.next_power_of_2(channels)),
        "M": BLOCK[q_BHLK.element_size()],
        "N": BLOCK[q_BHLK.element_size()],
        "SCALE": channels**-0.5,
        "DOCUMENTS": document_BT is not None,
        "DOT": tl.float32 if wide else TYPES[q_BHLK.dtype],
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3",
    }
    return (q_BHLK.shape[1], q_BHLK.shape[2], k_BHTK.shape[2]), meta


def _strided(tensor: Tensor) -> tuple[Tensor, int, int, int]:
    """The tensor and its strides but the last, which is 1."""
    tensor = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
    return tensor, *tensor.stride()[:-1]


@torch.library.custom_op("braingpt::magnitude_attention", mutates_args=())
def _attend(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None, quota_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes, meta = _launch(q_BHLK, k_BHTK, document_BT)
    y_BHLK = torch.empty(q_BHLK.shape, dtype=q_BHLK.dtype, device=q_BHLK.device)
    kept_BHL, bar_BHL = (
        torch.empty(q_BHLK.shape[:3], dtype=torch.int32, device=q_BHLK.device) for _ in range(2)
    )
    log_BHL = torch.empty(q_BHLK.shape[:3], dtype=torch.float32, device=q_BHLK.device)
    # Triton launches on the current device
    with torch.cuda.device_of(q_BHLK):
        launch(
            _forward, (triton.cdiv(sizes[1], meta["M"]), q_BHLK.shape[0] * sizes[0]),
            *_strided(q_BHLK), *_strided(k_BHTK), *_strided(v_BHTK), document_BT, quota_BL, *_strided(y_BHLK), kept_BHL, bar_BHL, log_BHL, *sizes, **meta,
        )  # fmt: skip
    return y_BHLK, kept_BHL, bar_BHL, log_BHL


@_attend.register_fake
def _(q_BHLK, k_BHTK, v_BHTK, document_BT, quota_BL):
    kept, bar = (q_BHLK.new_empty(q_BHLK.shape[:3], dtype=torch.int32) for _ in range(2))
    return q_BHLK.new_empty(q_BHLK.shape), kept, bar, q_BHLK.new_empty(q_BHLK.shape[:3], dtype=torch.float32)


@torch.library.custom_op("braingpt::magnitude_attention_backward", mutates_args=())
def _attend_backward(
    grad_BHLK: Tensor, y_BHLK: Tensor, bar_BHL: Tensor, log_BHL: Tensor,
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, document_BT: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    sizes, meta = _launch(q_BHLK, k_BHTK, document_BT)
    grads = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q_BHLK, k_BHTK, v_BHTK)]
    along_BHL = (grad_BHLK.float() * y_BHLK.float()).sum(-1)
    inputs = (
        *_strided(q_BHLK),
        *_strided(k_BHTK),
        *_strided(v_BHTK),
        document_BT,
        *_strided(grad_BHLK),
        bar_BHL,
        log_BHL,
        along_BHL,
    )
    programs = q_BHLK.shape[0] * sizes[0]
    with torch.cuda.device_of(q_BHLK):
        launch(
            _grad_queries,
            (triton.cdiv(sizes[1], meta["M"]), programs),
            *inputs,
            *_strided(grads[0]),
            *sizes,
            **meta,
        )
        launch(
            _grad_keys,
            (triton.cdiv(sizes[2], meta["N"]), programs),
            *inputs,
            *_strided(grads[1]),
            *_strided(grads[2]),
            *sizes,
            **meta,
        )
    return tuple(grads)


@_attend_backward.register_fake
def _(grad_BHLK, y_BHLK, bar_BHL, log_BHL, q_BHLK, k_BHTK, v_BHTK, document_BT):
    return tuple(t.new_empty(t.shape) for t in (q_BHLK, k_BHTK, v_BHTK))


def _keep(ctx, inputs, output) -> None:
    q_BHLK, k_BHTK, v_BHTK, document_BT, _ = inputs
    y_BHLK, kept_BHL, bar_BHL, log_BHL = output
    ctx.mark_non_differentiable(kept_BHL, bar_BHL, log_BHL)
    ctx.save_for_backward(y_BHLK, bar_BHL, log_BHL, q_BHLK, k_BHTK, v_BHTK, document_BT)


def _backward(ctx, grad_BHLK: Tensor, *_: Any) -> tuple:
    return *_attend_backward(grad_BHLK, *ctx.saved_tensors), None, None


_attend.register_autograd(_backward, setup_context=_keep)


@triton.jit
def _load(x, row, count, step, K: tl.constexpr, C: tl.constexpr, DOT: tl.constexpr):
    """Rows of K channels, as many of them as there are."""
    channel = tl.arange(0, C)
    inside = (row < count)[:, None] & (channel < K)[None, :]
    return tl.load(x + row[:, None] * step + channel[None, :], mask=inside, other=0.0).to(DOT)


@triton.jit
def _store(x, row, count, step, value, K: tl.constexpr, C: tl.constexpr):
    channel = tl.arange(0, C)
    inside = (row < count)[:, None] & (channel < K)[None, :]
    tl.store(x + row[:, None] * step + channel[None, :], value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _scored(
    q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS: tl.constexpr, PRECISION: tl.constexpr
):
    """(M, N) scores before scaling, and whether each query may read each key."""
    score_MN = tl.dot(q_MC, tl.trans(k_NC), input_precision=PRECISION)
    place_M = row_M + keys - length
    allowed_MN = (key_N[None, :] <= place_M[:, None]) & (row_M < length)[:, None]
    if DOCUMENTS:
        mine_M = tl.load(document + place_M, mask=row_M < length, other=0)
        theirs_N = tl.load(document + key_N, mask=key_N < keys, other=0)
        allowed_MN = allowed_MN & (mine_M[:, None] == theirs_N[None, :])
    return score_MN, allowed_MN


@triton.jit
def _bits(score_MN):
    return tl.abs(score_MN).to(tl.uint32, bitcast=True)


@triton.jit
def _forward(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document, quota, y, y_b, y_h, y_l, kept, bar, log, heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
    if DOCUMENTS:
        document += b * keys
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    real_M = row_M < length
    q_MC = _load(q + b * q_b + h * q_h, row_M, length, q_l, K, C, DOT)
    quota_M = tl.load(quota + b * length + row_M, mask=real_M, other=0)
    end = tl.minimum(keys, keys - length + (tl.program_id(0) + 1) * M)

    bar_M = tl.zeros((M,), tl.uint32)
    count_M = tl.where(real_M, -1, 0)
    shift = 30
    while (shift >= 0) & (tl.max((count_M != quota_M).to(tl.int32)) > 0):
        unit = tl.full((M,), 1, tl.uint32) << shift
        one_M, two_M, three_M = bar_M + unit, bar_M + 2 * unit, bar_M + 3 * unit
        ones_M = tl.zeros((M,), tl.int32)
        twos_M = tl.zeros((M,), tl.int32)
        threes_M = tl.zeros((M,), tl.int32)
        for first in range(0, end, N):
            key_N = first + tl.arange(0, N)
            k_NC = _load(k, key_N, keys, k_l, K, C, DOT)
            score_MN, allowed_MN = _scored(
                q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION
            )
            # no candidate is zero
            bits_MN = tl.where(allowed_MN, _bits(score_MN), 0)
            ones_M += tl.sum((bits_MN >= one_M[:, None]).to(tl.int32), 1)
            twos_M += tl.sum((bits_MN >= two_M[:, None]).to(tl.int32), 1)
            threes_M += tl.sum((bits_MN >= three_M[:, None]).to(tl.int32), 1)
        # The largest candidate that enough keys reach; with the last bits the bar is the quota-th largest
        # itself.
        bar_M = tl.where(
            threes_M >= quota_M,
            three_M,
            tl.where(twos_M >= quota_M, two_M, tl.where(ones_M >= quota_M, one_M, bar_M)),
        )
        count_M = tl.where(
            threes_M >= quota_M,
            threes_M,
            tl.where(twos_M >= quota_M, twos_M, tl.where(ones_M >= quota_M, ones_M, count_M)),
        )
        shift -= 2

    most_M = tl.full((M,), float("-inf"), tl.float32)
    sum_M = tl.zeros((M,), tl.float32)
    kept_M = tl.zeros((M,), tl.int32)
    y_MC = tl.zeros((M, C), tl.float32)
    for first in range(0, end, N):
        key_N = first + tl.arange(0, N)
        k_NC, v_NC = _load(k, key_N, keys, k_l, K, C, DOT), _load(v, key_N, keys, v_l, K, C, DOT)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        kept_MN = allowed_MN & (_bits(score_MN) >= bar_M[:, None])
        score_MN = tl.where(kept_MN, score_MN * SCALE, float("-inf"))
        new_M = tl.maximum(most_M, tl.max(score_MN, 1))
        # a row none of whose keys came yet
        base_M = tl.where(new_M == float("-inf"), 0.0, new_M)
        weight_MN = tl.exp(score_MN - base_M[:, None])
        fade_M = tl.exp(most_M - base_M)
        sum_M = sum_M * fade_M + tl.sum(weight_MN, 1)
        y_MC = tl.dot(weight_MN.to(DOT), v_NC, y_MC * fade_M[:, None], input_precision=PRECISION)
        kept_M += tl.sum(kept_MN.to(tl.int32), 1)
        most_M = new_M
    sum_M = tl.where(real_M, sum_M, 1.0)
    _store(y + b * y_b + h * y_h, row_M, length, y_l, y_MC / sum_M[:, None], K, C)
    of_row = (b * heads + h) * length + row_M
    tl.store(kept + of_row, kept_M, mask=real_M)
    tl.store(bar + of_row, bar_M.to(tl.int32, bitcast=True), mask=real_M)
    tl.store(log + of_row, most_M + tl.log(sum_M), mask=real_M)


@triton.jit
def _grad_queries(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document, grad, g_b, g_h, g_l, bar, log, along, gq, gq_b, gq_h, gq_l,
    heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
    if DOCUMENTS:
        document += b * keys
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    q_MC = _load(q + b * q_b + h * q_h, row_M, length, q_l, K, C, DOT)
    g_MC = _load(grad + b * g_b + h * g_h, row_M, length, g_l, K, C, DOT)
    of_row = (b * heads + h) * length + row_M
    bar_M = tl.load(bar + of_row, mask=row_M < length, other=0).to(tl.uint32, bitcast=True)
    log_M = tl.load(log + of_row, mask=row_M < length, other=0.0)
    along_M = tl.load(along + of_row, mask=row_M < length, other=0.0)
    end = tl.minimum(keys, keys - length + (tl.program_id(0) + 1) * M)
    grad_MC = tl.zeros((M, C), tl.float32)
    for first in range(0, end, N):
        key_N = first + tl.arange(0, N)
        k_NC, v_NC = _load(k, key_N, keys, k_l, K, C, DOT), _load(v, key_N, keys, v_l, K, C, DOT)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        weight_MN = tl.where(
            allowed_MN & (_bits(score_MN) >= bar_M[:, None]), tl.exp(score_MN * SCALE - log_M[:, None]), 0.0
        )
        of_weight_MN = tl.dot(g_MC, tl.trans(v_NC), input_precision=PRECISION)
        of_score_MN = weight_MN * (of_weight_MN - along_M[:, None]) * SCALE
        grad_MC = tl.dot(of_score_MN.to(DOT), k_NC, grad_MC, input_precision=PRECISION)
    _store(gq + b * gq_b + h * gq_h, row_M, length, gq_l, grad_MC, K, C)


@triton.jit
def _grad_keys(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document, grad, g_b, g_h, g_l, bar, log, along,
    gk, gk_b, gk_h, gk_l, gv, gv_b, gv_h, gv_l, heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    q, grad = q + b * q_b + h * q_h, grad + b * g_b + h * g_h
    if DOCUMENTS:
        document += b * keys
    key_N = tl.program_id(0) * N + tl.arange(0, N)
    k_NC = _load(k + b * k_b + h * k_h, key_N, keys, k_l, K, C, DOT)
    v_NC = _load(v + b * v_b + h * v_h, key_N, keys, v_l, K, C, DOT)
    grad_k_NC = tl.zeros((N, C), tl.float32)
    grad_v_NC = tl.zeros((N, C), tl.float32)
    # no earlier query sees these keys
    begin = tl.maximum(0, tl.program_id(0) * N - (keys - length)) // M * M
    for first in range(begin, length, M):
        row_M = first + tl.arange(0, M)
        q_MC, g_MC = _load(q, row_M, length, q_l, K, C, DOT), _load(grad, row_M, length, g_l, K, C, DOT)
        of_row = (b * heads + h) * length + row_M
        bar_M = tl.load(bar + of_row, mask=row_M < length, other=0).to(tl.uint32, bitcast=True)
        log_M = tl.load(log + of_row, mask=row_M < length, other=0.0)
        along_M = tl.load(along + of_row, mask=row_M < length, other=0.0)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        weight_MN = tl.where(
            allowed_MN & (_bits(score_MN) >= bar_M[:, None]), tl.exp(score_MN * SCALE - log_M[:, None]), 0.0
        )
        of_weight_MN = tl.dot(g_MC, tl.trans(v_NC), input_precision=PRECISION)
        of_score_MN = weight_MN * (of_weight_MN - along_M[:, None]) * SCALE
        grad_v_NC = tl.dot(tl.trans(weight_MN.to(DOT)), g_MC, grad_v_NC, input_precision=PRECISION)
        grad_k_NC = tl.dot(tl.trans(of_score_MN.to(DOT)), q_MC, grad_k_NC, input_precision=PRECISION)
    _store(gk + b * gk_b + h * gk_h, key_N, keys, gk_l, grad_k_NC, K, C)
    _store(gv + b * gv_b + h * gv_h, key_N, keys, gv_l, grad_v_NC, K, C)
