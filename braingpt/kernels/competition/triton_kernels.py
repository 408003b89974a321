"""The Triton kernels of the competition; `triton_ops.py` launches them.

`logits`: the router's product of 16-bit numbers, in float32.
`settle_pairs`: for a pairwise inhibition, one program holds a block of rows with all columns: it settles,
suppresses and chooses.
`settle_pooled`: with interneurons, a program passes over the columns of its rows once a round to excite the
interneurons, and once more to inhibit. The last pass reads the logits in the other direction, so that a part
is still in the cache, and writes only the best drive of each group of columns.
`choose`: the A strongest columns of a token are in the A groups with the best columns. So `choose` picks
those groups, then columns within them, whose drive it computes again. To choose A of 2,060 columns takes A
passes over 129 and over A x 16 numbers instead of over 2,060.

Among equals the lower index wins.
NaN counts as the strongest, as for torch.topk, so that a broken token shows.

Legend: E columns, A winners a token, R interneurons; M rows and B columns of a block, G groups of C columns,
S: A or R, rounded up to a power of two.
"""

# Triton compiles these functions; to its stubs, constants and tensors are not what they are to the compiler.
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

# The lowest drive of a real column. Only padding, and a column that has won already, is lower.
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def logits(
    x, weight, logit, N,
    E: tl.constexpr, D: tl.constexpr, M: tl.constexpr, B: tl.constexpr, K: tl.constexpr,
    OPERAND: tl.constexpr,
):  # fmt: skip
    """One block of rows by one block of columns."""
    # Programs of the same rows follow each other.
    blocks: tl.constexpr = (E + B - 1) // B
    row = ((tl.program_id(0) // blocks).to(tl.int64) * M + tl.arange(0, M))[:, None]
    column = tl.program_id(0) % blocks * B + tl.arange(0, B)
    sum_MB = tl.zeros((M, B), tl.float32)
    for first in range(0, D, K):
        channel = first + tl.arange(0, K)
        x_MK = tl.load(x + row * D + channel, mask=(row < N) & (channel < D)[None, :], other=0.0)
        weight_BK = tl.load(
            weight + column[:, None] * D + channel,
            mask=(column < E)[:, None] & (channel < D)[None, :],
            other=0.0,
        )
        sum_MB = tl.dot(x_MK.to(OPERAND), tl.trans(weight_BK.to(OPERAND)), sum_MB)
    tl.store(logit + row * E + column, sum_MB, mask=(row < N) & (column < E)[None, :])


@triton.jit
def _sigmoid(x, ASM: tl.constexpr):
    """In four instructions on a GPU; Triton's own takes eleven, most of them for denormals.

    The assembly is declared impure, because a product would otherwise compute it again in its own layout.
    """
    if ASM:
        return tl.inline_asm_elementwise(
            "{ .reg .f32 e; mul.ftz.f32 e, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 e, e; "
            "add.ftz.f32 e, e, 0f3F800000; rcp.approx.ftz.f32 $0, e; }",
            "=f,f",
            [x],
            dtype=tl.float32,
            is_pure=False,
            pack=1,
        )
    return tl.sigmoid(x)


@triton.jit
def _strongest(value_MK, id_MK, A: tl.constexpr, S: tl.constexpr):
    """(M, S) the ids of each row's A highest values, highest first, among equals the lower id; then zeros."""
    slot = tl.arange(0, S)[None, :]
    id_MS = tl.zeros((value_MK.shape[0], S), tl.int32)
    for a in range(A):
        highest_M1 = tl.max(value_MK, 1, keep_dims=True)
        id_M1 = tl.min(tl.where(value_MK == highest_M1, id_MK, 2147483647), 1, keep_dims=True)
        value_MK = tl.where(id_MK == id_M1, float("-inf"), value_MK)
        id_MS = tl.where(slot == a, id_M1, id_MS)
    return id_MS


@triton.jit
def _rank(drive, real):
    """What columns are chosen by: NaN is the highest, padding the lowest."""
    drive = tl.where(drive == drive, tl.maximum(drive, LOWEST), float("inf"))
    return tl.where(real, drive, float("-inf"))


@triton.jit
def settle_pairs(
    logit, strength, bias, excited, winner, drive, N,
    E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    A: tl.constexpr, S: tl.constexpr, M: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr,
    LEARNING: tl.constexpr,
):  # fmt: skip
    """Winners and their drive for one block of rows, all columns at once."""
    row, column = (tl.program_id(0).to(tl.int64) * M + tl.arange(0, M))[:, None], tl.arange(0, B)
    real = column[None, :] < E
    inside = (row < N) & real
    logit_MB = tl.load(logit + row * E + column, mask=inside, other=0.0)
    strength_BB = tl.load(
        strength + column[:, None] * E + column, mask=(column < E)[:, None] & real, other=0.0
    )
    excited_MB = _sigmoid(logit_MB, ASM)
    for _ in range(ROUNDS - 1):
        inhibited_MB = tl.dot(excited_MB, strength_BB, input_precision=PRECISION)
        excited_MB += SETTLING * (_sigmoid(logit_MB - inhibited_MB, ASM) - excited_MB)
    drive_MB = logit_MB - tl.dot(excited_MB, strength_BB, input_precision=PRECISION)
    if LEARNING:
        tl.store(excited + row * E + column, excited_MB.to(excited.dtype.element_ty), mask=inside)
    rank_MB = _rank(drive_MB + tl.load(bias + column, mask=column < E, other=0.0), real)
    winner_MS = _strongest(rank_MB, tl.broadcast_to(column[None, :], (M, B)), A, S)
    slot = tl.arange(0, S)
    given = (row < N) & (slot < A)[None, :]
    tl.store(winner + row * A + slot, winner_MS.to(tl.int64), mask=given)
    tl.store(drive + row * A + slot, tl.gather(drive_MB, winner_MS, 1), mask=given)


@triton.jit
def settle_pooled(
    logit, to, frm, own, bias, excited, pooled, best, N,
    E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, M: tl.constexpr, B: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
    PRECISION: tl.constexpr, LEARNING: tl.constexpr,
):  # fmt: skip
    """The interneurons' excitation in each round, and each group's best drive, for one block of rows."""
    row, unit = (tl.program_id(0).to(tl.int64) * M + tl.arange(0, M))[:, None], tl.arange(0, S)
    # The interneurons' excitation (M, S) of each round so far.
    sums = ()
    for done in tl.static_range(ROUNDS):
        pooled_MS = tl.zeros((M, S), tl.float32)
        for first in range(0, E, B):
            column = first + tl.arange(0, B)
            inside = (row < N) & (column < E)[None, :]
            excited_MB, drive_MB = _excited(
                logit, frm, own, sums, row, column, N, E, done, SETTLING, ASM, R, S, PRECISION
            )
            if done > 0:
                excited_MB += SETTLING * (_sigmoid(drive_MB, ASM) - excited_MB)
            if LEARNING and done == ROUNDS - 1:
                tl.store(excited + row * E + column, excited_MB.to(excited.dtype.element_ty), mask=inside)
            to_BS = tl.load(
                to + column[:, None] * R + unit, mask=(column < E)[:, None] & (unit < R), other=0.0
            )
            pooled_MS = tl.dot(excited_MB, to_BS, pooled_MS, input_precision=PRECISION)
        tl.store(pooled + (done * N + row) * R + unit, pooled_MS, mask=(row < N) & (unit < R)[None, :])
        # Triton has no starred expressions.
        sums = sums + (pooled_MS,)  # noqa: RUF005
    last = (E - 1) // B * B
    for back in range(0, E, B):
        column = last - back + tl.arange(0, B)
        _, drive_MB = _excited(
            logit, frm, own, sums, row, column, N, E, ROUNDS, SETTLING, ASM, R, S, PRECISION
        )
        drive_MB += tl.load(bias + column, mask=column < E, other=float("-inf"))
        group = (last - back) // C + tl.arange(0, B // C)
        # One NaN among the logits makes the whole row's drive NaN through the interneurons, and with it the
        # best of every group.
        best_MG = tl.max(tl.reshape(drive_MB, (M, B // C, C)), 2)
        tl.store(best + row * ((E + C - 1) // C) + group, best_MG, mask=(row < N) & (group * C < E)[None, :])


@triton.jit
def _excited(
    logit, frm, own, sums, row, column, N,
    E: tl.constexpr, DONE: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(M, B) the excitation before the last of `DONE` rounds, and the logits less its inhibition."""
    unit = tl.arange(0, S)
    drive_MB = tl.load(logit + row * E + column, mask=(row < N) & (column < E)[None, :], other=0.0)
    logit_MB, excited_MB = drive_MB, _sigmoid(drive_MB, ASM)
    own_B = tl.load(own + column, mask=column < E, other=0.0)
    from_SB = tl.load(
        frm + unit[:, None] * E + column, mask=(column < E)[None, :] & (unit < R)[:, None], other=0.0
    )
    for i in tl.static_range(DONE):
        if i > 0:
            excited_MB += SETTLING * (_sigmoid(drive_MB, ASM) - excited_MB)
        drive_MB = logit_MB + excited_MB * own_B - tl.dot(sums[i], from_SB, input_precision=PRECISION)
    return excited_MB, drive_MB


@triton.jit
def choose(
    logit, frm, own, bias, pooled, best, winner, drive, N,
    E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, A: tl.constexpr, S: tl.constexpr, M: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr,
    G: tl.constexpr,
):  # fmt: skip
    """Winners and their drive for one block of rows, from the groups with the best columns."""
    row = (tl.program_id(0).to(tl.int64) * M + tl.arange(0, M))[:, None]
    slot, group = tl.arange(0, S), tl.arange(0, G)
    best_MG = tl.load(best + row * GROUPS + group, mask=(row < N) & (group < GROUPS)[None, :], other=0.0)
    CHOSEN: tl.constexpr = min(A, GROUPS)
    group_MS = _strongest(
        _rank(best_MG, (group < GROUPS)[None, :]), tl.broadcast_to(group[None, :], (M, G)), CHOSEN, S
    )
    group_MS = tl.where((slot < CHOSEN)[None, :], group_MS, GROUPS)
    column_MK = tl.reshape(group_MS[:, :, None] * C + tl.arange(0, C)[None, None, :], (M, S * C))
    real = column_MK < E
    drive_MK = _drive(
        logit, frm, own, pooled, row, column_MK, (row < N) & real, N, E, ROUNDS, SETTLING, ASM, R
    )
    rank_MK = _rank(drive_MK + tl.load(bias + column_MK, mask=real, other=0.0), real)
    winner_MS = _strongest(rank_MK, column_MK, A, S)
    given = (row < N) & (slot < A)[None, :]
    tl.store(winner + row * A + slot, winner_MS.to(tl.int64), mask=given)
    tl.store(
        drive + row * A + slot,
        _drive(logit, frm, own, pooled, row, winner_MS, given, N, E, ROUNDS, SETTLING, ASM, R),
        mask=given,
    )


@triton.jit
def _drive(
    logit, frm, own, pooled, row, column_MK, real, N,
    E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """(M, K) the logits of `column` less what inhibits them, for a few columns of each row."""
    logit_MK = tl.load(logit + row * E + column_MK, mask=real, other=0.0)
    own_MK = tl.load(own + column_MK, mask=real, other=0.0)
    excited_MK, drive_MK = _sigmoid(logit_MK, ASM), logit_MK
    for i in tl.static_range(ROUNDS):
        if i > 0:
            excited_MK += SETTLING * (_sigmoid(drive_MK, ASM) - excited_MK)
        drive_MK = logit_MK + excited_MK * own_MK
        for r in tl.static_range(R):
            pooled_M1 = tl.load(pooled + (i * N + row) * R + r, mask=row < N, other=0.0)
            drive_MK -= pooled_M1 * tl.load(frm + r * E + column_MK, mask=real, other=0.0)
    return drive_MK
