"""The competition on a GPU, from the router's logits to the winners, as `kernels/competition/competition.py`
describes it.

`_logits`: the router's product of 16-bit numbers, in float32.
`_settle_pairs`: where each pair of columns has an inhibition, one program holds a block of rows with all
    columns: settles, suppresses, chooses.
`_settle_pooled`: where there are interneurons, a program passes over the columns of its rows once a round to
    excite these, once more to inhibit. It reads logits again, in the other direction, so that a part is still
    in the cache, and writes no drive: the best of each `GROUP` columns, no more.
`_choose`: the A strongest columns of a token lie in the A groups with the best columns; it chooses those,
    then among their columns, whose drive it computes again. Choosing A of 2,060 numbers so takes A passes
    over 129 and over A x 16 numbers, in place of the whole.

Among equals the lower index wins. What is not a number counts as the strongest, as for torch.topk, so that it
shows.

Legend: N tokens, E columns, A winners a token, R interneurons; in kernels M rows and B columns of a block, G
groups of C columns, S: A or R, rounded up.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from braingpt.kernels.launch import launch

# columns of which `_settle_pooled` keeps the best
GROUP = 16
# of a real column: below it is only what is none, or has won already
LOWEST = tl.constexpr(-3.4028234663852886e38)


def compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    settling: float,
    kept: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `competition.compete` for float32; excitation is empty unless learning, and that of the interneurons
    is of all rounds: (rounds, N, R).
    """
    tokens, columns = logit_NE.shape
    units = 0 if strength.ndim == 2 else strength.shape[2]
    logit_NE, strength = logit_NE.contiguous(), strength.contiguous()
    winner_NA = torch.empty(tokens, active, dtype=torch.int64, device=logit_NE.device)
    drive_NA = logit_NE.new_empty(tokens, active)
    excited_NE = (
        torch.empty_like(logit_NE, dtype=kept) if learning else logit_NE.new_empty(tokens, 0, dtype=kept)
    )
    pooled_ONR = logit_NE.new_empty(rounds, tokens, units)
    shape = {
        "N": tokens,
        "E": columns,
        "ROUNDS": rounds,
        "SETTLING": settling,
        "ASM": not triton.knobs.runtime.interpret,
    }
    # TF32 rounds what inhibits to less than 16 bits round what excites.
    products = {"PRECISION": "tf32" if kept.itemsize == 2 else "tf32x3", "LEARNING": learning}
    few = {"A": active, "S": triton.next_power_of_2(active)}
    if strength.ndim == 2:
        launch(
            _settle_pairs, (triton.cdiv(tokens, 32),), logit_NE, strength, bias_E, excited_NE, winner_NA, drive_NA,
            M=32, B=max(16, triton.next_power_of_2(columns)), num_warps=8, **shape, **products, **few,
        )  # fmt: skip
    else:
        to_ER, from_RE, own_E = strength[0], strength[1].T.contiguous(), (strength[0] * strength[1]).sum(-1)
        best_NG = logit_NE.new_empty(tokens, triton.cdiv(columns, GROUP))
        groups = {"C": GROUP, "R": units}
        launch(
            _settle_pooled, (triton.cdiv(tokens, 32),), logit_NE, to_ER, from_RE, own_E, bias_E, excited_NE, pooled_ONR, best_NG,
            M=32, B=64, S=max(16, triton.next_power_of_2(units)), **shape, **products, **groups,
        )  # fmt: skip
        # One warp: rows are reduced by shuffles alone.
        launch(
            _choose, (triton.cdiv(tokens, 2),), logit_NE, from_RE, own_E, bias_E, pooled_ONR, best_NG, winner_NA, drive_NA,
            M=2, GROUPS=best_NG.shape[1], G=triton.next_power_of_2(best_NG.shape[1]), num_warps=1, **shape, **groups, **few,
            beyond=lambda: -4 * tokens * max(0, columns - active * GROUP),
        )  # fmt: skip
    return winner_NA, drive_NA, excited_NE, pooled_ONR


def logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    """(N, E) x weight^T in float32 of 16-bit numbers.

    cuBLAS takes 400 us for 32,768 x 1,024 x 320 on an H100 where the result is wider than the operands.
    """
    (tokens, hidden), columns = x_ND.shape, len(weight_ED)
    logit_NE = x_ND.new_empty(tokens, columns, dtype=torch.float32)
    operand = (
        tl.float32 if triton.knobs.runtime.interpret else getattr(tl, str(x_ND.dtype).removeprefix("torch."))
    )
    launch(
        _logits, (triton.cdiv(tokens, 128) * triton.cdiv(columns, 128),), x_ND.contiguous(), weight_ED.contiguous(), logit_NE, tokens,
        E=columns, D=hidden, M=128, B=128, K=64, OPERAND=operand, num_warps=8, num_stages=3,
    )  # fmt: skip
    return logit_NE


@triton.jit
def _logits(
    x,
    weight,
    logit,
    N,
    E: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    K: tl.constexpr,
    OPERAND: tl.constexpr,
):
    # programs of the same rows follow each other
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

    Called impure, or a product would have it anew in its layout.
    """
    if ASM:
        return tl.inline_asm_elementwise(
            "{ .reg .f32 e; mul.ftz.f32 e, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 e, e; add.ftz.f32 e, e, 0f3F800000; rcp.approx.ftz.f32 $0, e; }",
            "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1,
        )  # fmt: skip
    return tl.sigmoid(x)


@triton.jit
def _strongest(value_MK, id_MK, A: tl.constexpr, S: tl.constexpr):
    """(M, S) the ids of each row's A highest values, highest first, among equals the lower id; zeros behind
    them.
    """
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
    """What columns are chosen by: no number is the highest, what is no column the lowest."""
    drive = tl.where(drive == drive, tl.maximum(drive, LOWEST), float("inf"))
    return tl.where(real, drive, float("-inf"))


@triton.jit
def _settle_pairs(
    logit, strength, bias, excited, winner, drive, N, E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    A: tl.constexpr, S: tl.constexpr, M: tl.constexpr, B: tl.constexpr, PRECISION: tl.constexpr, LEARNING: tl.constexpr,
):  # fmt: skip
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
def _settle_pooled(
    logit, to, frm, own, bias, excited, pooled, best, N, E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, M: tl.constexpr, B: tl.constexpr, C: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr, LEARNING: tl.constexpr,
):  # fmt: skip
    row, unit = (tl.program_id(0).to(tl.int64) * M + tl.arange(0, M))[:, None], tl.arange(0, S)
    # (M, S) of each round so far
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
        sums = sums + (pooled_MS,)  # noqa: RUF005  (Triton knows no stars)
    last = (E - 1) // B * B
    for back in range(0, E, B):
        column = last - back + tl.arange(0, B)
        _, drive_MB = _excited(
            logit, frm, own, sums, row, column, N, E, ROUNDS, SETTLING, ASM, R, S, PRECISION
        )
        drive_MB += tl.load(bias + column, mask=column < E, other=float("-inf"))
        group = (last - back) // C + tl.arange(0, B // C)
        # One logit that is no number makes all of the row's drive none, by the interneurons: the best of a
        # group says so as well.
        best_MG = tl.max(tl.reshape(drive_MB, (M, B // C, C)), 2)
        tl.store(best + row * ((E + C - 1) // C) + group, best_MG, mask=(row < N) & (group * C < E)[None, :])


@triton.jit
def _excited(
    logit, frm, own, sums, row, column, N, E: tl.constexpr, DONE: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(M, B) the excitation that the last of `DONE` rounds heard, and what its inhibition leaves of the
    logits.
    """
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
def _choose(
    logit, frm, own, bias, pooled, best, winner, drive, N, E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr,
    R: tl.constexpr, A: tl.constexpr, S: tl.constexpr, M: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr, G: tl.constexpr,
):  # fmt: skip
    row, slot, group = (
        (tl.program_id(0).to(tl.int64) * M + tl.arange(0, M))[:, None],
        tl.arange(0, S),
        tl.arange(0, G),
    )
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
    logit, frm, own, pooled, row, column_MK, real, N, E: tl.constexpr, ROUNDS: tl.constexpr, SETTLING: tl.constexpr, ASM: tl.constexpr, R: tl.constexpr,
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
