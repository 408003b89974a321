"""Adaptive depth: easy tokens halt, and the layers behind an exit never see them - in training, in evaluation
and in generation alike.

At an exit each token's score decides by a threshold (`selection.py`), so the choice is causal and knows no
neighbours. Those that go on are packed, and the layers behind run on the packed tokens alone. What the layers
up to the next exit change is multiplied by the score, so that the choice learns (as in mixture-of-depths,
Raposo et al. 2024, section 3.4); each layer by the score of one exit, not by those of all before it, whose
product would leave the last layers nothing to say. A halted token leaves the recurrent states and caches of
the deeper layers as they were.

Legend: B batch, L tokens, D hidden.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from braingpt.model.layers import rms_norm
from braingpt.model.routing.token_selection import Selection, Selector
from braingpt.model.sequence_layout import Layout

Layers = Callable[[Tensor, Layout], Tensor]


class Exit(nn.Module):
    """A place where tokens may halt; about `rate` of those that arrive go on."""

    def __init__(self, hidden: int, rate: float) -> None:
        super().__init__()
        self.selector = Selector(hidden, rate, dial=True)
        self.record = None

    def forward(self, x_BLD: Tensor, layout: Layout, near: Layers, far: Layers) -> tuple[Tensor, Tensor]:
        """The tokens (B, L, D), those that go on after `near` and `far` have run on them, and how many of
        each row these are (B,).

        `near`: the layers up to the next exit; `far`: that exit and all behind it.
        """
        score_BL, chosen_BL = self.selector(rms_norm(x_BLD), layout.valid)
        packed = Selection.of(chosen_BL, least=int(torch.is_grad_enabled()))
        if self.record is not None:
            self.record.products(2 * score_BL.numel() * x_BLD.shape[2])
        if packed.index.shape[1] == 0:
            return x_BLD, packed.count
        before_BCD, inside = packed.pack(x_BLD), packed.pack_layout(layout)
        change_BCD = near(before_BCD, inside) - before_BCD
        after_BCD = far(before_BCD + change_BCD * packed.pack(score_BL)[..., None], inside)
        return x_BLD + packed.unpack(after_BCD - before_BCD, x_BLD.shape[1]), packed.count

    def parameters_active(self) -> int:
        """Weights an arriving token multiplies with."""
        return self.selector.weight.numel()


def continuing(share: float, exits: Sequence[int], layers: int) -> float:
    """The rate c at which tokens go on at each exit, so that a token uses `share` of the `layers` on average.

    After the j-th exit c^j of the tokens are left: the sum over exits of c^j times the layers up to the next
    exit is what `share` leaves.
    """
    if share >= 1:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        low, high = (rate, high) if sum(arriving(rate, exits, layers)) < share * layers else (low, rate)
    return high


def arriving(rate: float, exits: Sequence[int], layers: int) -> list[float]:
    """The share of the tokens that reaches each layer, when `rate` of them go on at each exit."""
    return [rate ** sum(layer >= at for at in exits) for layer in range(layers)]
