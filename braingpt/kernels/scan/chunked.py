"""The state-space scan in chunks, in plain torch: for CPUs, and for GPUs without a faster backend.

Inside a chunk the recurrence is matrix products, between chunks it is a short loop (Dao & Gu 2024, section
6).
The scan is one autograd function, because on a CPU the time goes to memory and not to arithmetic.
A few rows of one chunk at a time stay in the cache, buffers are used again, and heads share every product
that only reads b and c.
The backward pass computes the decays again instead of keeping (B, H, C, Q, Q) of them.

With s the running sum of dt a inside a chunk, u = dt x, and w_ij = exp(s_i - s_j) for j <= i in the same
document:

    y_i   = sum over j of w_ij (c_i . b_j) u_j + exp(s_i) c_i . before
    after = exp(s_Q) before + sum over j of exp(s_Q - s_j) b_j u_j'

Legend: B batch, L tokens, H heads, P channels a head, N state, C chunks, R rows at a time, Q tokens of this
chunk, D = H x P.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from braingpt.kernels.uncompiled import uncompiled

# Rows of the batch at a time: fewer pay more for each call, more leave the cache.
ROWS = 4


class _Workspace:
    """Buffers by name and shape, used again for every chunk so that they stay in the cache."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        if (name, shape) not in self.buffers:
            self.buffers[name, shape] = self.like.new_empty(shape)
        return self.buffers[name, shape]


class _Decays(NamedTuple):
    """How much remains of what a token writes, and of the state before the chunk."""

    # Of token j's writing at token i. Meaningless for j > i, which `allowed` masks once for all heads.
    inside_RHQQ: Tensor
    allowed_RQQ: Tensor
    # Of each token's writing at the chunk's end.
    to_end_RQH1: Tensor
    # Of the state before the chunk at each token.
    from_start_RQH1: Tensor
    # Of the state before the chunk at the chunk's end.
    survives_R1H1: Tensor


def _decays(
    dt_RQH: Tensor, a_H: Tensor, documents: tuple[Tensor, Tensor] | None, workspace: _Workspace
) -> _Decays:
    """`documents`: result of `_documents`."""
    log_RQH = torch.cumsum(dt_RQH * a_H, 1)
    log_RHQ = log_RQH.transpose(1, 2)
    inside = workspace("inside", *log_RHQ.shape, log_RHQ.shape[2])
    torch.sub(log_RHQ[..., :, None], log_RHQ[..., None, :], out=inside).clamp_(max=0).exp_()
    allowed = torch.ones_like(inside[0, 0]).tril_().expand(len(inside), -1, -1)
    to_end, from_start = torch.exp(log_RQH[:, -1:] - log_RQH), torch.exp(log_RQH)
    survives = from_start[:, -1:]
    if documents is not None:
        run_RQ, before_R = documents
        last_R1 = run_RQ[:, -1:]
        allowed = allowed * (run_RQ[:, :, None] == run_RQ[:, None, :])
        to_end = to_end * (run_RQ == last_R1)[..., None]
        from_start = from_start * (run_RQ == before_R[:, None])[..., None]
        survives = survives * (before_R[:, None] == last_R1)[..., None]
    return _Decays(inside, allowed, to_end[..., None], from_start[..., None], survives[..., None])


def _row_chunks(batch: int, length: int, chunk: int) -> Iterator[tuple[slice, int, slice]]:
    """Rows of the batch, number of the chunk and its tokens; the chunks of the same rows in order."""
    for row in range(0, batch, ROWS):
        for i, start in enumerate(range(0, length, chunk)):
            yield slice(row, min(row + ROWS, batch)), i, slice(start, min(start + chunk, length))


def _by_row(left_RHAB: Tensor, right_RHBC: Tensor, out_RHAC: Tensor) -> Tensor:
    """Batched product over heads, row by row; `torch.matmul` over both would copy what is not contiguous."""
    for left, right, out in zip(left_RHAB, right_RHBC, out_RHAC, strict=True):
        torch.bmm(left, right, out=out)
    return out_RHAC


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP, run_BL, chunk: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        batch, length, heads, width = x_BLHP.shape
        chunks = -(-length // chunk)
        # States before each chunk and after the last; only the backward pass needs them all.
        slots = chunks + 1 if keep else 2
        states_CBNHP = state_BHNP.new_empty(slots, batch, b_BLN.shape[2], heads, width)
        states_CBNHP[0] = state_BHNP.transpose(1, 2)
        y_BLHP = x_BLHP.new_empty(x_BLHP.shape)
        workspace = _Workspace(x_BLHP)
        for rows, i, span in _row_chunks(batch, length, chunk):
            x_RQHP, dt_RQH, b_RQN, c_RQN = (t[rows, span] for t in (x_BLHP, dt_BLH, b_BLN, c_BLN))
            decays = _decays(dt_RQH, a_H, _documents(run_BL, rows, span), workspace)
            before_RNHP, after_RNHP = states_CBNHP[i % slots, rows], states_CBNHP[(i + 1) % slots, rows]
            u_RQHP = torch.mul(x_RQHP, dt_RQH[..., None], out=workspace("u", *x_RQHP.shape))

            weight_RHQQ = decays.inside_RHQQ.mul_((torch.bmm(c_RQN, b_RQN.mT) * decays.allowed_RQQ)[:, None])
            y_RQHP = workspace("y", *x_RQHP.shape)
            _by_row(weight_RHQQ, u_RQHP.transpose(1, 2), y_RQHP.transpose(1, 2))
            carried_RQHP = workspace("carried", *x_RQHP.shape)
            torch.bmm(c_RQN, before_RNHP.flatten(2), out=carried_RQHP.flatten(2))
            torch.addcmul(y_RQHP, carried_RQHP, decays.from_start_RQH1, out=y_BLHP[rows, span])

            torch.mul(before_RNHP, decays.survives_R1H1, out=after_RNHP)
            u_RQHP *= decays.to_end_RQH1
            after_RNHP.flatten(2).baddbmm_(b_RQN.mT, u_RQHP.flatten(2))
        if keep:
            ctx.save_for_backward(x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, run_BL, states_CBNHP, y_BLHP)
            ctx.chunk = chunk
        return y_BLHP, states_CBNHP[chunks % slots].transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx, grad_BLHP: Tensor, grad_BHNP: Tensor) -> tuple[Tensor | None, ...]:
        x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, run_BL, states_CBNHP, y_BLHP = ctx.saved_tensors
        batch, length = dt_BLH.shape[:2]
        grad_BLHP = grad_BLHP.contiguous()
        # Gradient of the state at the chunk's end.
        grad_state_BNHP = grad_BHNP.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        grad_x, grad_dt, grad_b, grad_c = (t.new_empty(t.shape) for t in (x_BLHP, dt_BLH, b_BLN, c_BLN))
        grad_a_H = torch.zeros_like(a_H)
        workspace = _Workspace(x_BLHP)
        for rows, i, span in reversed(list(_row_chunks(batch, length, ctx.chunk))):
            x_RQHP, dt_RQH, b_RQN, c_RQN, y_RQHP, g_RQHP = (
                t[rows, span] for t in (x_BLHP, dt_BLH, b_BLN, c_BLN, y_BLHP, grad_BLHP)
            )
            decays = _decays(dt_RQH, a_H, _documents(run_BL, rows, span), workspace)
            before_RND, after_RNHP = states_CBNHP[i, rows].flatten(2), states_CBNHP[i + 1, rows]
            grad_after_RNHP = grad_state_BNHP[rows]
            grad_after_RND = grad_after_RNHP.flatten(2)
            u_RQHP = torch.mul(x_RQHP, dt_RQH[..., None], out=workspace("u", *x_RQHP.shape))
            g_RHQP = g_RQHP.transpose(1, 2)

            # Gradient of w_ij (c_i . b_j), in which only w depends on the head: summed over the heads before
            # b and c are multiplied.
            weight_RHQQ = decays.inside_RHQQ
            score_RHQQ = _by_row(
                g_RHQP, u_RQHP.permute(0, 2, 3, 1), workspace("score", *weight_RHQQ.shape)
            ).mul_(weight_RHQQ)
            score_RQQ = score_RHQQ.sum(1).mul_(decays.allowed_RQQ)
            weight_RHQQ *= (torch.bmm(c_RQN, b_RQN.mT) * decays.allowed_RQQ)[:, None]

            grad_u_RQHP = workspace("grad_u", *x_RQHP.shape)
            _by_row(weight_RHQQ.mT, g_RHQP, grad_u_RQHP.transpose(1, 2))
            product_RQHP = workspace("product", *x_RQHP.shape)
            product_RQD = product_RQHP.flatten(2)
            torch.bmm(b_RQN, grad_after_RND, out=product_RQD)
            grad_u_RQHP.addcmul_(product_RQHP, decays.to_end_RQH1)
            torch.mul(grad_u_RQHP, dt_RQH[..., None], out=grad_x[rows, span])

            # exp(s_i) multiplies all that y_i reads and divides all that others read of u_i; what reaches the
            # state after the chunk grows with exp(s_Q).
            direct_RQH = torch.mul(grad_u_RQHP, x_RQHP, out=product_RQHP).sum(3)
            of_log_RQH = torch.mul(g_RQHP, y_RQHP, out=product_RQHP).sum(3) - dt_RQH * direct_RQH
            of_log_RQH[:, -1] += torch.mul(
                after_RNHP, grad_after_RNHP, out=workspace("state", *after_RNHP.shape)
            ).sum((1, 3))
            of_step_RQH = of_log_RQH.flip(1).cumsum(1).flip(1)
            torch.addcmul(direct_RQH, of_step_RQH, a_H, out=grad_dt[rows, span])
            grad_a_H += (of_step_RQH * dt_RQH).sum((0, 1))

            u_RQHP *= decays.to_end_RQH1
            of_state_RQN = torch.bmm(u_RQHP.flatten(2), grad_after_RND.mT)
            grad_b[rows, span] = of_state_RQN.baddbmm_(score_RQQ.mT, c_RQN)
            torch.mul(g_RQHP, decays.from_start_RQH1, out=product_RQHP)
            of_state_RQN = torch.bmm(product_RQD, before_RND.mT)
            grad_c[rows, span] = of_state_RQN.baddbmm_(score_RQQ, b_RQN)
            grad_after_RNHP *= decays.survives_R1H1
            grad_after_RND.baddbmm_(c_RQN.mT, product_RQD)
        return grad_x, grad_dt, grad_a_H, grad_b, grad_c, grad_state_BNHP.transpose(1, 2), None, None, None


def _documents(run_BL: Tensor | None, rows: slice, span: slice) -> tuple[Tensor, Tensor] | None:
    """(R, Q) the documents of a chunk's tokens, and (R,) of the state before it.

    The initial state belongs to the first document.
    """
    if run_BL is None:
        return None
    return run_BL[rows, span], run_BL[rows, max(span.start - 1, 0)]


# A loop of large products, which compiling would only unroll.
@uncompiled
def chunked(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHNP: Tensor,
    run_BL: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """As `scan.scan`, with outputs in x's type; differentiable once in all tensors.

    Computes in float32, or float64 for float64. `a` must not be positive.
    """
    wide = torch.promote_types(x_BLHP.dtype, torch.float32)
    tensors = [t.to(wide) for t in (x_BLHP, dt_BLH, a_H, b_BLN, c_BLN, state_BHNP)]
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    y_BLHP, state_BHNP = _Chunked.apply(*tensors, run_BL, chunk, keep)
    return y_BLHP.to(x_BLHP.dtype), state_BHNP
