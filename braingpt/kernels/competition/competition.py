"""Which columns win a token: the arithmetic of `model/columns/competition.py`.

Columns score a token (logits), inhibit each other over some rounds, and the strongest win.
`reference.py` is the definition and the path of CPUs, `triton_ops.py` the path of GPUs.
`gradients.py` has what the winners teach the router and the inhibition.

Legend: N tokens, E columns, A winners a token, R interneurons, D hidden.
The inhibition (`strength`) is (E, E) or (2, E, R), as in `reference.py`.
"""

import torch
from torch import Tensor

from braingpt.kernels import dispatch
from braingpt.kernels.competition import reference
from braingpt.kernels.competition.gradients import wide_product
from braingpt.kernels.dispatch import Backend, OptionalFunction
from braingpt.kernels.linear import linear

_TRITON_OPS = "braingpt.kernels.competition.triton_ops"
_triton_compete = OptionalFunction(_TRITON_OPS, "compete")
_triton_logits = OptionalFunction(_TRITON_OPS, "logits")
# The most that the Triton kernels hold in registers.
TRITON_COLUMNS, TRITON_WINNERS = 4096, 32


def operand_type(x_ND: Tensor, weight_ED: Tensor) -> torch.dtype:
    """The type the router multiplies in: 16 bits on a GPU under autocast, the weight's type otherwise.

    A GPU returns the product of 16-bit numbers in float32, so rounding makes no two of thousands of columns
    tie.
    """
    if x_ND.is_cuda and weight_ED.dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    return weight_ED.dtype


def logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    """The router's scores of the columns.

    Args:
        x_ND: Hidden states; the product's operands are rounded to their type.
        weight_ED: The router's weight.

    Returns:
        (N, E) in the weight's type.
    """
    if x_ND.dtype == weight_ED.dtype:
        return linear(x_ND, weight_ED)
    weight_ED = weight_ED.to(x_ND.dtype)
    triton = dispatch.select("competition", x_ND.new_empty(0, dtype=torch.float32)) == "triton"
    return _logits(x_ND, weight_ED) if triton else wide_product(x_ND, weight_ED.T)


def compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    excitation_dtype: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose the winners of each token. No result has a gradient; `gradients.WinnersDrive` adds it.

    Args:
        logit_NE: The router's scores.
        strength: The inhibition.
        bias_E: Added to the drive to decide who wins; no result contains it.
        rounds: Rounds of inhibition.
        active: Winners a token.
        excitation_dtype: Type in which the excitation is returned.
        learning: Whether the last two results are needed; otherwise they mean nothing.

    Returns:
        Winners (N, A), their logits less their inhibition (N, A), the settled excitation (N, E), and the
        interneurons' excitation (N, R).
    """
    if _triton_takes(logit_NE, active):
        winner_NA, drive_NA, excited_NE, pooled_ONR = _compete(
            logit_NE, strength, bias_E, rounds, active, excitation_dtype, learning
        )
        return winner_NA, drive_NA, excited_NE, pooled_ONR[-1]
    winner_NA, drive_NA, excited_NE, pooled_NR = reference.compete(logit_NE, strength, bias_E, rounds, active)
    return winner_NA, drive_NA, excited_NE.to(excitation_dtype), pooled_NR


def _triton_takes(logit_NE: Tensor, active: int) -> bool:
    fits = logit_NE.shape[1] <= TRITON_COLUMNS and active <= TRITON_WINNERS
    return fits and dispatch.select("competition", logit_NE) == "triton"


def _triton_supports(logit_NE: Tensor) -> bool:
    return dispatch.runs_on_gpu(logit_NE) and logit_NE.dtype == torch.float32


dispatch.register(
    "competition",
    Backend("triton", _triton_compete.triton_unavailable_reason, _triton_supports),
    Backend("torch"),
)


@torch.library.custom_op("braingpt::router_logits", mutates_args=())
def _logits(x_ND: Tensor, weight_ED: Tensor) -> Tensor:
    return _triton_logits(x_ND, weight_ED)


@_logits.register_fake
def _(x_ND, weight_ED):
    return x_ND.new_empty(len(x_ND), len(weight_ED), dtype=torch.float32)


@torch.library.custom_op("braingpt::compete", mutates_args=())
def _compete(
    logit_NE: Tensor,
    strength: Tensor,
    bias_E: Tensor,
    rounds: int,
    active: int,
    excitation_dtype: torch.dtype,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `compete`, but the interneurons' excitation is of all rounds: (rounds, N, R)."""
    return _triton_compete(
        logit_NE, strength, bias_E, rounds, active, reference.SETTLING, excitation_dtype, learning
    )


@_compete.register_fake
def _(logit_NE, strength, bias_E, rounds, active, excitation_dtype, learning):
    tokens, columns = logit_NE.shape
    return (
        logit_NE.new_empty(tokens, active, dtype=torch.int64),
        logit_NE.new_empty(tokens, active),
        logit_NE.new_empty(tokens, columns if learning else 0, dtype=excitation_dtype),
        logit_NE.new_empty(rounds, tokens, 0 if strength.ndim == 2 else strength.shape[2]),
    )
