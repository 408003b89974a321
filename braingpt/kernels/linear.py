"""x times a weight, transposed, where a CPU has only a few rows.

One row is bound by reading the weight, and torch's product reads it with one thread.
For a weight of 16,448 x 512 in float32 it takes 2.4 ms, whether it may use one core or two.
While compiling, the row is written as a sum of products, which Inductor shares between all threads: 1.1 ms
on two cores (`benchmarks/one_row.py`).

A few rows are drafts to be verified or a small batch.
Where the weight is tall and no cache holds it, the library's product takes longer for two rows than for two
single ones; weight times rows, the other way round, takes a quarter to two thirds of that.
For weights wider than high, and for small ones, the turned product is slower.

Measured with one thread, in ms:

    weight          rows    rows x weight    weight x rows
    16,448 x 512       2              7.6              2.0
    16,448 x 512       4              6.4              3.8
    16,448 x 512       8              7.0              4.4
    16,448 x 512      16              8.6              9.8
    2,560 x 640        4             0.83             0.49
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_ROWS = 8
# Numbers of a tall weight from which the product is turned.
TURN_FROM = 2**20


def linear(x: Tensor, weight_FD: Tensor) -> Tensor:
    """Multiply x with the transposed weight.

    Args:
        x: Inputs (..., D).
        weight_FD: The weight.

    Returns:
        Outputs (..., F).
    """
    rows = x.shape[:-1].numel()
    if x.device.type != "cpu" or rows > FEW_ROWS or torch.is_grad_enabled():
        return F.linear(x, weight_FD)
    if torch.compiler.is_compiling():
        return sum_of_products(x, weight_FD) if rows == 1 else F.linear(x, weight_FD)
    if rows > 1 and weight_FD.numel() >= TURN_FROM and weight_FD.shape[0] >= 2 * weight_FD.shape[1]:
        return (weight_FD @ x.reshape(rows, -1).mT).mT.reshape(*x.shape[:-1], -1)
    return F.linear(x, weight_FD)


def sum_of_products(x: Tensor, weight_FD: Tensor) -> Tensor:
    """One row (..., D) times a weight of any type as a sum of products, for a compiler: (..., F).

    `as_strided` makes Inductor store the row first.
    Otherwise it computes what the row comes from, a norm's root and division, again for each of the F
    outputs: 1.38 ms instead of 0.53 with int8 weights of 16,448 x 512 and one thread.
    """
    row_D = x.reshape(-1)
    return (weight_FD.to(x.dtype) * row_D.as_strided(row_D.shape, (1,))).sum(-1).view(*x.shape[:-1], -1)
