"""Checks of the tokens that a program gives to a model.

Shapes and types are checked at every call, values only once a lookup has failed: a look at values would wait
for a GPU.
"""

from torch import Tensor

from braingpt.errors import UserError
from braingpt.kernels.cross_entropy import IGNORED
from braingpt.model.sequence_layout import Layout


def check_batch(ids_BL: Tensor, targets_BL: Tensor | None, reduction: str) -> None:
    """Raise UserError for what is no batch of tokens.

    Args:
        ids_BL: Token ids.
        targets_BL: The tokens that follow, or None.
        reduction: "mean" or "none".
    """
    shape = check_tokens("ids", ids_BL)
    if targets_BL is not None and check_tokens("targets", targets_BL) != shape:
        raise UserError(
            f"the targets have shape {tuple(targets_BL.shape)}, the ids {tuple(shape)}; "
            "there is one target for each id"
        )
    if reduction not in ("mean", "none"):
        raise UserError(f"reduction must be 'mean' or 'none', not {reduction!r}")


def check_tokens(name: str, tokens_BL: Tensor) -> tuple[int, ...]:
    """The shape of a tensor of tokens; UserError where it is none."""
    if not isinstance(tokens_BL, Tensor):
        raise UserError(
            f"the {name} must be a tensor of token ids, shape (B, L), not {type(tokens_BL).__name__}"
        )
    if tokens_BL.is_floating_point() or tokens_BL.ndim != 2 or not tokens_BL.shape[1]:
        found = f"{tuple(tokens_BL.shape)} of {tokens_BL.dtype}"
        raise UserError(
            f"the {name} must be whole numbers, shape (B, L) with at least one token, not {found}"
        )
    return tuple(tokens_BL.shape)


def outside_vocabulary(name: str, tokens_BL: Tensor, vocab: int) -> UserError:
    """The error for a token that the vocabulary does not have.

    Args:
        name: "token" or "target".
        tokens_BL: The tokens, one of them outside.
        vocab: Size of the vocabulary.
    """
    outside = tokens_BL[((tokens_BL < 0) | (tokens_BL >= vocab)) & (tokens_BL != IGNORED)]
    return UserError(f"{name} {int(outside[0])} is outside the model's vocabulary of {vocab}")


def check_state_fits(state_rows: int, rows: int, layout: Layout) -> None:
    """Check that a state and a batch go together.

    Args:
        state_rows: Rows of the state.
        rows: Rows of the batch.
        layout: The layout of the batch.

    Raises:
        UserError: The rows differ, a row has several documents, or padding is not on the left.
    """
    if state_rows != rows:
        raise UserError(f"the state is for {state_rows} rows, the ids have {rows}")
    on_the_left = layout.valid is None or bool((layout.valid[:, 1:] >= layout.valid[:, :-1]).all())
    if layout.segment is not None or not on_the_left:
        raise UserError("with a state, each row is one document and padding is on its left")
