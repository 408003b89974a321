"""x times a weight, transposed.

One row on a CPU is bound by reading the weight. torch's product reads it with one thread: 16,448 x 512 in
float32 in 2.4 ms whether it may use one core or two. While compiling, the row is written as a sum of
products, which Inductor shares between all threads: 1.1 ms on two cores (benchmarks/one_row.py).

A few rows, as drafts to be verified or a small batch, times a tall weight that no cache holds: the library's
product takes longer for two rows than for two single ones; the other way round, weight times rows, it takes a
quarter to two thirds (16,448 x 512, one thread: two rows 7.6 and 2.0 ms, four 6.4 and
3.8, eight 7.0 and 4.4, sixteen 8.6 and 9.8; 2,560 x 640, four rows, 0.83 and 0.49). For weights wider than
high it is slower, and so is it for small ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_ROWS = 8
# weights from which a tall matrix is turned
TALL = 2**20


def linear(x: Tensor, weight_FD: Tensor) -> Tensor:
    """(..., D) to (..., F)."""
    rows = x.shape[:-1].numel()
    if x.device.type != "cpu" or rows > FEW_ROWS or torch.is_grad_enabled():
        return F.linear(x, weight_FD)
    if torch.compiler.is_compiling():
        return written_out(x, weight_FD) if rows == 1 else F.linear(x, weight_FD)
    if rows > 1 and weight_FD.numel() >= TALL and weight_FD.shape[0] >= 2 * weight_FD.shape[1]:
        return (weight_FD @ x.reshape(rows, -1).mT).mT.reshape(*x.shape[:-1], -1)
    return F.linear(x, weight_FD)


def written_out(x: Tensor, weight_FD: Tensor) -> Tensor:
    """One row (..., D) times a weight of any type as a sum of products, for a compiler: (..., F).

    `as_strided` has Inductor write the row down first. Otherwise it computes what the row comes from, a
    norm's root and division, anew for each of the F outputs: with int8 weights of 16,448 x 512 1.38 ms in
    place of 0.53 (one thread).
    """
    row_D = x.reshape(-1)
    return (weight_FD.to(x.dtype) * row_D.as_strided(row_D.shape, (1,))).sum(-1).view(*x.shape[:-1], -1)
