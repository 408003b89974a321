"""The Triton kernels of the state-space scan; `triton_ops.py` launches them (Dao & Gu 2024, section 6).

Forward runs `states`, the recurrence over chunks and the only sequential part, and then `outputs`.
Backward runs `states` again, because the states were not kept.
It then runs `states` from the end, with c and y's gradient instead of b and x, for the gradient of each
state, and last `grad_inputs` and `grad_shared`.
A program has one chunk of one head; in `grad_shared` one chunk of a group of heads, and in `states` all
chunks of one block of a state.
Products take their operands in type DOT and add in float32; decays and states are float32.

With s the running sum of dt a in a chunk, u = dt x, and w_ij = exp(s_i - s_j) for j <= i in the same document
(0 otherwise):

    y_i   = sum over j of w_ij (c_i . b_j) u_j + exp(s_i) c_i . before
    after = exp(s_Q) before + sum over j of exp(s_Q - s_j) b_j u_j'

Legend: B batch, L tokens, H heads, P channels a head (or a block of them), N state (or a block), C chunks, Q
tokens a chunk.
Parameters that end in `_ptr` are pointers; `x_b` is the stride of x along the batch (l tokens, h heads).
"""

# Triton compiles these functions; to its stubs, constants and tensors are not what they are to the compiler.
# pyright: reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def _chunk_of(dt_ptr, a, run_ptr, batch, head, chunk, length, heads, Q: tl.constexpr, HAS_RUN: tl.constexpr):
    """A chunk's token numbers, which of them are real, dt, s, documents, and the decays.

    The decays are those from each token to the end, from the start to each token, and from start to end.
    Tokens past the sequence's end have dt = 0, so they change no state.
    """
    start = chunk * Q
    token_Q = start + tl.arange(0, Q)
    real_Q = token_Q < length
    dt_Q = tl.load(dt_ptr + (batch * length + token_Q) * heads + head, mask=real_Q, other=0.0)
    log_Q = tl.cumsum(dt_Q * a, 0)
    end = tl.sum(tl.where(tl.arange(0, Q) == Q - 1, log_Q, 0.0), 0)
    to_end_Q, from_start_Q, survives = tl.exp(end - log_Q), tl.exp(log_Q), tl.exp(end)
    run_Q = token_Q * 0
    # The initial state belongs to the first document.
    if HAS_RUN:
        run_Q = tl.load(run_ptr + batch * length + token_Q, mask=real_Q, other=0)
        last = tl.sum(tl.where(token_Q == tl.minimum(start + Q, length) - 1, run_Q, 0), 0)
        before = tl.load(run_ptr + batch * length + tl.maximum(start - 1, 0))
        to_end_Q = tl.where(run_Q == last, to_end_Q, 0.0)
        from_start_Q = tl.where(run_Q == before, from_start_Q, 0.0)
        survives = tl.where(before == last, survives, 0.0)
    return token_Q, real_Q, dt_Q, log_Q, run_Q, to_end_Q, from_start_Q, survives


@triton.jit
def _inside(log_Q, run_Q, HAS_RUN: tl.constexpr, Q: tl.constexpr):
    """(Q, Q) w_ij; where j > i the difference may be large, so it is clipped before the exponential."""
    i_Q = tl.arange(0, Q)
    allowed_QQ = i_Q[:, None] >= i_Q[None, :]
    if HAS_RUN:
        allowed_QQ = allowed_QQ & (run_Q[:, None] == run_Q[None, :])
    return tl.where(allowed_QQ, tl.exp(tl.minimum(log_Q[:, None] - log_Q[None, :], 0.0)), 0.0)


@triton.jit
def _tile(ptr, row, row_ok, row_stride, first, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of a matrix with unit column stride, columns first to first + BLOCK; zero outside."""
    column = first + tl.arange(0, BLOCK)
    return tl.load(
        ptr + row[:, None] * row_stride + column[None, :],
        mask=row_ok[:, None] & (column < WIDTH)[None, :],
        other=0.0,
    )


@triton.jit
def _store_tile(ptr, value, row, row_ok, row_stride, first, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    column = first + tl.arange(0, BLOCK)
    mask = row_ok[:, None] & (column < WIDTH)[None, :]
    tl.store(ptr + row[:, None] * row_stride + column[None, :], value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def states(
    left_ptr, left_b, left_l, right_ptr, right_b, right_l, right_h, dt_ptr, a_ptr, run_ptr,
    first_ptr, states_ptr, last_ptr, length, heads, chunks,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr,
    HAS_RUN: tl.constexpr, FORWARD: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The recurrence over chunks of one block of a state, which stays in registers.

    Each chunk adds the sum over its tokens of left' (weight x right).
    Forward, left is b, right x and the weight what reaches the chunk's end; the state before each chunk is
    stored.
    Otherwise, from the end, left is c, right y's gradient and the weight what comes from the chunk's start;
    the gradient of the state after each chunk is stored.
    The loop is pipelined: a chunk's tiles load while the chunk before is multiplied.
    """
    of, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    batch, head = of // heads, of % heads
    n, p = block // tl.cdiv(P, BP) * BN, block % tl.cdiv(P, BP) * BP
    row, a = n + tl.arange(0, BN), tl.load(a_ptr + head)
    state_NP = _tile(first_ptr + of * N * P, row, row < N, P, p, P, BP)
    for step in range(chunks):
        chunk = step if FORWARD else chunks - 1 - step
        token_Q, real_Q, dt_Q, _, _, to_end_Q, from_start_Q, survives = _chunk_of(
            dt_ptr, a, run_ptr, batch, head, chunk, length, heads, Q, HAS_RUN
        )
        # Loaded as the product needs it: a tile turned after loading is not copied ahead asynchronously.
        at_NQ = batch * left_b + row[:, None] + token_Q[None, :] * left_l
        left_NQ = tl.load(left_ptr + at_NQ, mask=(row < N)[:, None] & real_Q[None, :], other=0.0)
        right_QP = _tile(right_ptr + batch * right_b + head * right_h, token_Q, real_Q, right_l, p, P, BP)
        weighted_QP = right_QP.to(tl.float32) * (to_end_Q * dt_Q if FORWARD else from_start_Q)[:, None]
        _store_tile(states_ptr + (of * chunks + chunk) * N * P, state_NP, row, row < N, P, p, P, BP)
        state_NP = tl.dot(
            left_NQ.to(DOT), weighted_QP.to(DOT), state_NP * survives, input_precision=PRECISION
        )
    _store_tile(last_ptr + of * N * P, state_NP, row, row < N, P, p, P, BP)


@triton.jit
def outputs(
    x_ptr, x_b, x_l, x_h, dt_ptr, a_ptr, b_ptr, b_b, b_l, c_ptr, c_b, c_l, run_ptr,
    states_ptr, y_ptr, length, heads, chunks,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr,
    HAS_RUN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y of one chunk, one head, one block of channels."""
    of, p = tl.program_id(1).to(tl.int64), tl.program_id(2) * BP
    batch, head = of // heads, of % heads
    token_Q, real_Q, dt_Q, log_Q, run_Q, _, from_start_Q, _ = _chunk_of(
        dt_ptr, tl.load(a_ptr + head), run_ptr, batch, head, tl.program_id(0), length, heads, Q, HAS_RUN
    )
    states_ptr += (of * chunks + tl.program_id(0)) * N * P
    score_QQ, carried_QP = tl.zeros((Q, Q), tl.float32), tl.zeros((Q, BP), tl.float32)
    for n in range(0, N, BN):
        b_QN = _tile(b_ptr + batch * b_b, token_Q, real_Q, b_l, n, N, BN).to(DOT)
        c_QN = _tile(c_ptr + batch * c_b, token_Q, real_Q, c_l, n, N, BN).to(DOT)
        row = n + tl.arange(0, BN)
        before_NP = _tile(states_ptr, row, row < N, P, p, P, BP).to(DOT)
        score_QQ = tl.dot(c_QN, tl.trans(b_QN), score_QQ, input_precision=PRECISION)
        carried_QP = tl.dot(c_QN, before_NP, carried_QP, input_precision=PRECISION)
    weight_QQ = score_QQ * _inside(log_Q, run_Q, HAS_RUN, Q)
    u_QP = (
        _tile(x_ptr + batch * x_b + head * x_h, token_Q, real_Q, x_l, p, P, BP).to(tl.float32) * dt_Q[:, None]
    )
    y_QP = tl.dot(
        weight_QQ.to(DOT), u_QP.to(DOT), carried_QP * from_start_Q[:, None], input_precision=PRECISION
    )
    _store_tile(y_ptr + (batch * length * heads + head) * P, y_QP, token_Q, real_Q, heads * P, p, P, BP)


@triton.jit
def grad_inputs(
    g_ptr, g_b, g_l, g_h, x_ptr, x_b, x_l, x_h, dt_ptr, a_ptr,
    b_ptr, b_b, b_l, c_ptr, c_b, c_l, run_ptr,
    grad_states_ptr, grad_x_ptr, direct_ptr, step_ptr, length, heads, chunks,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr,
    HAS_RUN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of x; gradient of dt through u = dt x (`direct`); gradient of each token's log decay (`step`).

    The log decay acts through w and through what earlier tokens write to the chunk's end.
    `direct` and `step` are linear in the products over P, so each block of channels writes its share (P
    blocks, B, L, H).
    Through w the gradient is the sum over pairs j < k <= i that span the token k: rows minus columns, summed
    from the end.
    The pairs i = j are left out, because they cancel in the sum but not in rounding.
    """
    of, block = tl.program_id(1).to(tl.int64), tl.program_id(2)
    batch, head, p = of // heads, of % heads, block * BP
    token_Q, real_Q, dt_Q, log_Q, run_Q, to_end_Q, _, _ = _chunk_of(
        dt_ptr, tl.load(a_ptr + head), run_ptr, batch, head, tl.program_id(0), length, heads, Q, HAS_RUN
    )
    grad_states_ptr += (of * chunks + tl.program_id(0)) * N * P
    g_QP = _tile(g_ptr + batch * g_b + head * g_h, token_Q, real_Q, g_l, p, P, BP).to(DOT)
    x_QP = _tile(x_ptr + batch * x_b + head * x_h, token_Q, real_Q, x_l, p, P, BP).to(tl.float32)
    # First what is inside the chunk, then the state: one loop over N for both took 90 registers more.
    score_QQ = tl.zeros((Q, Q), tl.float32)
    for n in range(0, N, BN):
        b_QN = _tile(b_ptr + batch * b_b, token_Q, real_Q, b_l, n, N, BN).to(DOT)
        c_QN = _tile(c_ptr + batch * c_b, token_Q, real_Q, c_l, n, N, BN).to(DOT)
        score_QQ = tl.dot(c_QN, tl.trans(b_QN), score_QQ, input_precision=PRECISION)
    weight_QQ = score_QQ * _inside(log_Q, run_Q, HAS_RUN, Q)
    kept_QQ = tl.dot(g_QP, tl.trans((x_QP * dt_Q[:, None]).to(DOT)), input_precision=PRECISION)
    i_Q = tl.arange(0, Q)
    pair_QQ = tl.where(i_Q[:, None] > i_Q[None, :], kept_QQ * weight_QQ, 0.0)
    step_Q = tl.cumsum(tl.sum(pair_QQ, 1) - tl.sum(pair_QQ, 0), 0, reverse=True)

    carried_QP = tl.zeros((Q, BP), tl.float32)
    for n in range(0, N, BN):
        b_QN = _tile(b_ptr + batch * b_b, token_Q, real_Q, b_l, n, N, BN).to(DOT)
        row = n + tl.arange(0, BN)
        grad_after_NP = _tile(grad_states_ptr, row, row < N, P, p, P, BP).to(DOT)
        carried_QP = tl.dot(b_QN, grad_after_NP, carried_QP, input_precision=PRECISION)
    carried_QP *= to_end_Q[:, None]
    writes_Q = tl.sum(carried_QP * x_QP, 1) * dt_Q
    step_Q += tl.cumsum(writes_Q, 0) - writes_Q
    grad_u_QP = tl.dot(tl.trans(weight_QQ.to(DOT)), g_QP, carried_QP, input_precision=PRECISION)
    _store_tile(
        grad_x_ptr + (batch * length * heads + head) * P,
        grad_u_QP * dt_Q[:, None],
        token_Q,
        real_Q,
        heads * P,
        p,
        P,
        BP,
    )
    place_Q = ((block * (tl.num_programs(1) // heads) + batch) * length + token_Q) * heads + head
    tl.store(direct_ptr + place_Q, tl.sum(grad_u_QP * x_QP, 1), mask=real_Q)
    tl.store(step_ptr + place_Q, step_Q, mask=real_Q)


@triton.jit
def grad_shared(
    g_ptr, g_b, g_l, g_h, x_ptr, x_b, x_l, x_h, dt_ptr, a_ptr,
    b_ptr, b_b, b_l, c_ptr, c_b, c_l, run_ptr,
    states_ptr, grad_states_ptr, grad_b_ptr, grad_c_ptr, step_ptr, length, heads, chunks, groups,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr,
    HAS_RUN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of b and c, summed over a group of heads (groups, B, L, N); the other part of `step`.

    This part of the log decay's gradient comes through the state before the chunk.
    It is linear in the products over N, so each block of N writes its share (N blocks, B, L, H).
    """
    of, block = tl.program_id(1).to(tl.int64), tl.program_id(2)
    batch, group, n = of // groups, of % groups, block * BN
    batches = tl.num_programs(1) // groups
    row = n + tl.arange(0, BN)
    token_Q = tl.program_id(0) * Q + tl.arange(0, Q)
    real_Q = token_Q < length
    b_QN = _tile(b_ptr + batch * b_b, token_Q, real_Q, b_l, n, N, BN).to(DOT)
    c_QN = _tile(c_ptr + batch * c_b, token_Q, real_Q, c_l, n, N, BN).to(DOT)
    grad_score_QQ = tl.zeros((Q, Q), tl.float32)
    grad_b_QN, grad_c_QN = tl.zeros((Q, BN), tl.float32), tl.zeros((Q, BN), tl.float32)
    share = tl.cdiv(heads, groups)
    for head in range(group * share, tl.minimum(group * share + share, heads)):
        _, _, dt_Q, log_Q, run_Q, to_end_Q, from_start_Q, survives = _chunk_of(
            dt_ptr, tl.load(a_ptr + head), run_ptr, batch, head, tl.program_id(0), length, heads, Q, HAS_RUN
        )
        place = ((batch * heads + head) * chunks + tl.program_id(0)) * N * P
        # One product is finished before the next begins, because registers are what this kernel runs out of.
        # Where P is one block the compiler loads each tile once, as long as no store comes in between.
        passed_N = tl.zeros((BN,), tl.float32)
        read_QN = tl.zeros((Q, BN), tl.float32)
        for p in range(0, P, BP):
            g_QP = _tile(g_ptr + batch * g_b + head * g_h, token_Q, real_Q, g_l, p, P, BP).to(DOT)
            before_NP = _tile(states_ptr + place, row, row < N, P, p, P, BP)
            read_QN = tl.dot(g_QP, tl.trans(before_NP.to(DOT)), read_QN, input_precision=PRECISION)
            passed_N += tl.sum(before_NP * _tile(grad_states_ptr + place, row, row < N, P, p, P, BP), 1)
        read_QN *= from_start_Q[:, None]
        grad_c_QN += read_QN
        step_Q = tl.cumsum(tl.sum(read_QN * c_QN.to(tl.float32), 1), 0, reverse=True) + survives * tl.sum(
            passed_N, 0
        )

        written_QN = tl.zeros((Q, BN), tl.float32)
        for p in range(0, P, BP):
            u_QP = (
                _tile(x_ptr + batch * x_b + head * x_h, token_Q, real_Q, x_l, p, P, BP).to(tl.float32)
                * dt_Q[:, None]
            )
            grad_after_NP = _tile(grad_states_ptr + place, row, row < N, P, p, P, BP)
            written_QN = tl.dot(
                u_QP.to(DOT), tl.trans(grad_after_NP.to(DOT)), written_QN, input_precision=PRECISION
            )
        grad_b_QN += written_QN * to_end_Q[:, None]

        kept_QQ = tl.zeros((Q, Q), tl.float32)
        for p in range(0, P, BP):
            g_QP = _tile(g_ptr + batch * g_b + head * g_h, token_Q, real_Q, g_l, p, P, BP).to(DOT)
            u_QP = (
                _tile(x_ptr + batch * x_b + head * x_h, token_Q, real_Q, x_l, p, P, BP).to(tl.float32)
                * dt_Q[:, None]
            )
            kept_QQ = tl.dot(g_QP, tl.trans(u_QP.to(DOT)), kept_QQ, input_precision=PRECISION)
        grad_score_QQ += kept_QQ * _inside(log_Q, run_Q, HAS_RUN, Q)
        at_Q = (block * batches + batch) * length + token_Q
        tl.store(step_ptr + at_Q * heads + head, step_Q, mask=real_Q)
    grad_c_QN = tl.dot(grad_score_QQ.to(DOT), b_QN, grad_c_QN, input_precision=PRECISION)
    grad_b_QN = tl.dot(tl.trans(grad_score_QQ.to(DOT)), c_QN, grad_b_QN, input_precision=PRECISION)
    offset = (group * batches + batch) * length * N
    _store_tile(grad_b_ptr + offset, grad_b_QN, token_Q, real_Q, N, n, N, BN)
    _store_tile(grad_c_ptr + offset, grad_c_QN, token_Q, real_Q, N, n, N, BN)
