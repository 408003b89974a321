"""Adaptive depth: easy tokens halt, and the layers after an exit never see them, in training, evaluation and
generation.

At an exit each token's score is compared with a threshold (`token_selection.py`), so the choice is causal and
does not depend on neighbours. The tokens that continue are packed, and the layers after the exit run on the
packed tokens only. The change that the layers up to the next exit make is multiplied by the score, so that
the choice learns (as in mixture-of-depths, Raposo et al. 2024, section 3.4). Each layer's change is
multiplied by the score of one exit, not of all exits before it, whose product would leave the last layers
nothing to say. A halted token leaves the recurrent states and caches of the deeper layers as they were.

Legend: B batch, L tokens, C packed slots, D hidden.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.model.config import ModelConfig
from braingpt.model.layers import rms_norm
from braingpt.model.routing.token_selection import Selection, Selector
from braingpt.model.sequence_layout import Layout
from braingpt.model.work_counters import CountedModule
from braingpt.utils.arguments import check_number

Layers = Callable[[Tensor, Layout], Tensor]
# Halvings of the interval in which the rate is searched; float64 has 52 bits of mantissa.
BISECTIONS = 60


class Exit(CountedModule):
    """A place where tokens may halt; about `rate` of those that arrive continue."""

    def __init__(self, hidden: int, rate: float) -> None:
        super().__init__()
        self.selector = Selector(hidden, rate, adjustable=True)

    def forward(
        self, x_BLD: Tensor, layout: Layout, next_span: Layers, deeper: Layers
    ) -> tuple[Tensor, Tensor]:
        """Let some tokens halt, and run the deeper layers on the others.

        Args:
            x_BLD: Hidden states of the tokens that arrive.
            layout: Their layout.
            next_span: The layers up to the next exit.
            deeper: The next exit and all layers after it.

        Returns:
            The states (B, L, D) of all tokens, and how many of each row continued (B,).
        """
        score_BL, chosen_BL = self.selector(rms_norm(x_BLD), layout.valid)
        packed = Selection.of(chosen_BL, min_slots=int(torch.is_grad_enabled()))
        if self.record is not None:
            self.record.add_flops(2 * score_BL.numel() * x_BLD.shape[2])
        if packed.index.shape[1] == 0:
            return x_BLD, packed.count
        before_BCD, inside = packed.pack(x_BLD), packed.pack_layout(layout)
        change_BCD = next_span(before_BCD, inside) - before_BCD
        after_BCD = deeper(before_BCD + change_BCD * packed.pack(score_BL)[..., None], inside)
        return x_BLD + packed.unpack(after_BCD - before_BCD, x_BLD.shape[1]), packed.count

    def parameters_active(self) -> int:
        """Weights that an arriving token is multiplied with."""
        return self.selector.weight.numel()


def continue_rate(share: float, exits: Sequence[int], layers: int) -> float:
    """The rate at which tokens continue at each exit for a wanted mean depth.

    After the j-th exit, rate^j of the tokens remain. The sum over exits of rate^j times the layers up to the
    next exit is what `share` leaves.

    Args:
        share: Mean share of the layers that a token passes.
        exits: Layers before which tokens may halt.
        layers: Layers of the model.

    Returns:
        Share of the arriving tokens, 0 to 1.
    """
    if share >= 1:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        rate = (low + high) / 2
        too_few = sum(arrival_shares(rate, exits, layers)) < share * layers
        low, high = (rate, high) if too_few else (low, rate)
    return high


def arrival_shares(rate: float, exits: Sequence[int], layers: int) -> list[float]:
    """The share of the tokens that reaches each layer, when `rate` of them continue at each exit."""
    return [rate ** bisect_right(exits, layer) for layer in range(layers)]


def set_effort(exits: Sequence[Exit], config: ModelConfig, share: float | None) -> None:
    """Let the exits pass on so many tokens that these pass a share of the layers on average.

    Args:
        exits: The exits of a model.
        config: The model's settings.
        share: Mean share of the layers that a token passes; None: the trained share.

    Raises:
        UserError: There are no exits, or they cannot give the share.
    """
    if share is None and not exits:
        return
    if not exits:
        raise UserError(
            "every token goes through all layers of this model; "
            "effort needs one trained with model.depth.share below 1"
        )
    rate = None
    if share is not None:
        check_number("effort", share)
        least = config.depth_exits[0] / config.layers
        if not least <= share <= 1:
            raise UserError(
                f"effort must be between {least:.2f} (the layers before the first exit) and 1, not {share:g}"
            )
        rate = continue_rate(share, config.depth_exits, config.layers)
    for exit_ in exits:
        exit_.selector.set_rate(rate)
