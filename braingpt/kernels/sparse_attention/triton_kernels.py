"""The Triton kernels of sparse attention; `triton_ops.py` launches them.

A row's threshold is the quota-th largest |score|, found bit by bit: the bits of floats that are not negative
are in the order of the floats.
So each pass over the keys scores them again, counts the keys that reach each of three candidates, and settles
two bits.
A block stops as soon as every row's count is its quota, mostly some passes before the 16th.
Softmax and values then take one more pass (Dao et al. 2022, "FlashAttention"), and the backward kernels read
the thresholds.
All kernels score in the same blocks by the same product, so what is kept is the same to the bit.

Legend: M query rows and N keys of a block, C channels rounded up to a power of two; parameters are pointers
or numbers, and `q_b` is the stride of `q` along the batch (h heads, l rows).
"""

# Triton compiles these functions; to its stubs, constants and tensors are not what they are to the compiler.
# pyright: reportOperatorIssue=false, reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def _load(x, row, count, step, K: tl.constexpr, C: tl.constexpr, DOT: tl.constexpr):
    """Rows of K channels; rows past `count` and channels past K are zero."""
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
def forward(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document,
    quota, y, y_b, y_h, y_l, kept, threshold, log_sum, heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs, keys kept, thresholds and logarithms of the softmax sums of one block of queries."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
    if DOCUMENTS:
        document += b * keys
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    real_M = row_M < length
    q_MC = _load(q + b * q_b + h * q_h, row_M, length, q_l, K, C, DOT)
    quota_M = tl.load(quota + b * length + row_M, mask=real_M, other=0)
    end = tl.minimum(keys, keys - length + (tl.program_id(0) + 1) * M)

    threshold_M = tl.zeros((M,), tl.uint32)
    count_M = tl.where(real_M, -1, 0)
    shift = 30
    while (shift >= 0) & (tl.max((count_M != quota_M).to(tl.int32)) > 0):
        unit = tl.full((M,), 1, tl.uint32) << shift
        one_M, two_M, three_M = threshold_M + unit, threshold_M + 2 * unit, threshold_M + 3 * unit
        ones_M = tl.zeros((M,), tl.int32)
        twos_M = tl.zeros((M,), tl.int32)
        threes_M = tl.zeros((M,), tl.int32)
        for first in range(0, end, N):
            key_N = first + tl.arange(0, N)
            k_NC = _load(k, key_N, keys, k_l, K, C, DOT)
            score_MN, allowed_MN = _scored(
                q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION
            )
            # No candidate is zero, so keys that may not be read never count.
            bits_MN = tl.where(allowed_MN, _bits(score_MN), 0)
            ones_M += tl.sum((bits_MN >= one_M[:, None]).to(tl.int32), 1)
            twos_M += tl.sum((bits_MN >= two_M[:, None]).to(tl.int32), 1)
            threes_M += tl.sum((bits_MN >= three_M[:, None]).to(tl.int32), 1)
        # The largest candidate that enough keys reach. After the last bits the threshold is the quota-th
        # largest itself.
        threshold_M = tl.where(
            threes_M >= quota_M,
            three_M,
            tl.where(twos_M >= quota_M, two_M, tl.where(ones_M >= quota_M, one_M, threshold_M)),
        )
        count_M = tl.where(
            threes_M >= quota_M,
            threes_M,
            tl.where(twos_M >= quota_M, twos_M, tl.where(ones_M >= quota_M, ones_M, count_M)),
        )
        shift -= 2

    highest_M = tl.full((M,), float("-inf"), tl.float32)
    sum_M = tl.zeros((M,), tl.float32)
    kept_M = tl.zeros((M,), tl.int32)
    y_MC = tl.zeros((M, C), tl.float32)
    for first in range(0, end, N):
        key_N = first + tl.arange(0, N)
        k_NC, v_NC = _load(k, key_N, keys, k_l, K, C, DOT), _load(v, key_N, keys, v_l, K, C, DOT)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        kept_MN = allowed_MN & (_bits(score_MN) >= threshold_M[:, None])
        score_MN = tl.where(kept_MN, score_MN * SCALE, float("-inf"))
        new_M = tl.maximum(highest_M, tl.max(score_MN, 1))
        # A row of which no key has come yet.
        base_M = tl.where(new_M == float("-inf"), 0.0, new_M)
        weight_MN = tl.exp(score_MN - base_M[:, None])
        fade_M = tl.exp(highest_M - base_M)
        sum_M = sum_M * fade_M + tl.sum(weight_MN, 1)
        y_MC = tl.dot(weight_MN.to(DOT), v_NC, y_MC * fade_M[:, None], input_precision=PRECISION)
        kept_M += tl.sum(kept_MN.to(tl.int32), 1)
        highest_M = new_M
    sum_M = tl.where(real_M, sum_M, 1.0)
    _store(y + b * y_b + h * y_h, row_M, length, y_l, y_MC / sum_M[:, None], K, C)
    of_row = (b * heads + h) * length + row_M
    tl.store(kept + of_row, kept_M, mask=real_M)
    tl.store(threshold + of_row, threshold_M.to(tl.int32, bitcast=True), mask=real_M)
    tl.store(log_sum + of_row, highest_M + tl.log(sum_M), mask=real_M)


@triton.jit
def grad_queries(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document,
    grad, g_b, g_h, g_l, threshold, log_sum, along,
    gq, gq_b, gq_h, gq_l, heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of queries."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
    if DOCUMENTS:
        document += b * keys
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    q_MC = _load(q + b * q_b + h * q_h, row_M, length, q_l, K, C, DOT)
    g_MC = _load(grad + b * g_b + h * g_h, row_M, length, g_l, K, C, DOT)
    of_row = (b * heads + h) * length + row_M
    threshold_M = tl.load(threshold + of_row, mask=row_M < length, other=0).to(tl.uint32, bitcast=True)
    log_sum_M = tl.load(log_sum + of_row, mask=row_M < length, other=0.0)
    along_M = tl.load(along + of_row, mask=row_M < length, other=0.0)
    end = tl.minimum(keys, keys - length + (tl.program_id(0) + 1) * M)
    grad_MC = tl.zeros((M, C), tl.float32)
    for first in range(0, end, N):
        key_N = first + tl.arange(0, N)
        k_NC, v_NC = _load(k, key_N, keys, k_l, K, C, DOT), _load(v, key_N, keys, v_l, K, C, DOT)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        weight_MN = tl.where(
            allowed_MN & (_bits(score_MN) >= threshold_M[:, None]),
            tl.exp(score_MN * SCALE - log_sum_M[:, None]),
            0.0,
        )
        of_weight_MN = tl.dot(g_MC, tl.trans(v_NC), input_precision=PRECISION)
        of_score_MN = weight_MN * (of_weight_MN - along_M[:, None]) * SCALE
        grad_MC = tl.dot(of_score_MN.to(DOT), k_NC, grad_MC, input_precision=PRECISION)
    _store(gq + b * gq_b + h * gq_h, row_M, length, gq_l, grad_MC, K, C)


@triton.jit
def grad_keys(
    q, q_b, q_h, q_l, k, k_b, k_h, k_l, v, v_b, v_h, v_l, document,
    grad, g_b, g_h, g_l, threshold, log_sum, along,
    gk, gk_b, gk_h, gk_l, gv, gv_b, gv_h, gv_l, heads, length, keys,
    K: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SCALE: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of keys and of their values."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    q, grad = q + b * q_b + h * q_h, grad + b * g_b + h * g_h
    if DOCUMENTS:
        document += b * keys
    key_N = tl.program_id(0) * N + tl.arange(0, N)
    k_NC = _load(k + b * k_b + h * k_h, key_N, keys, k_l, K, C, DOT)
    v_NC = _load(v + b * v_b + h * v_h, key_N, keys, v_l, K, C, DOT)
    grad_k_NC = tl.zeros((N, C), tl.float32)
    grad_v_NC = tl.zeros((N, C), tl.float32)
    # No earlier query sees these keys.
    begin = tl.maximum(0, tl.program_id(0) * N - (keys - length)) // M * M
    for first in range(begin, length, M):
        row_M = first + tl.arange(0, M)
        q_MC, g_MC = _load(q, row_M, length, q_l, K, C, DOT), _load(grad, row_M, length, g_l, K, C, DOT)
        of_row = (b * heads + h) * length + row_M
        threshold_M = tl.load(threshold + of_row, mask=row_M < length, other=0).to(tl.uint32, bitcast=True)
        log_sum_M = tl.load(log_sum + of_row, mask=row_M < length, other=0.0)
        along_M = tl.load(along + of_row, mask=row_M < length, other=0.0)
        score_MN, allowed_MN = _scored(q_MC, k_NC, row_M, key_N, length, keys, document, DOCUMENTS, PRECISION)
        weight_MN = tl.where(
            allowed_MN & (_bits(score_MN) >= threshold_M[:, None]),
            tl.exp(score_MN * SCALE - log_sum_M[:, None]),
            0.0,
        )
        of_weight_MN = tl.dot(g_MC, tl.trans(v_NC), input_precision=PRECISION)
        of_score_MN = weight_MN * (of_weight_MN - along_M[:, None]) * SCALE
        grad_v_NC = tl.dot(tl.trans(weight_MN.to(DOT)), g_MC, grad_v_NC, input_precision=PRECISION)
        grad_k_NC = tl.dot(tl.trans(of_score_MN.to(DOT)), q_MC, grad_k_NC, input_precision=PRECISION)
    _store(gk + b * gk_b + h * gk_h, key_N, keys, gk_l, grad_k_NC, K, C)
    _store(gv + b * gv_b + h * gv_h, key_N, keys, gv_l, grad_v_NC, K, C)
