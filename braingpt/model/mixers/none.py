"""No mixer: a block that has one is an MLP alone, and sees no other token."""

from typing import Any

import torch
from torch import Tensor

from braingpt.model.interface import Mixer
from braingpt.model.sequence_layout import Layout


class NoState:
    """Nothing is carried from token to token."""

    def bytes(self) -> int:
        """None."""
        return 0


class NoMixer(Mixer):
    """Stands where a block has no mixer. `Block` never runs it."""

    kind = "none"

    def new_state(self, batch: int, device: torch.device, dtype: torch.dtype) -> NoState:
        """As `Mixer.new_state`."""
        return NoState()

    def remember(self, x_BLD: Tensor, layout: Layout, state: Any) -> None:
        """Nothing is stored."""

    def parameters_active(self) -> int:
        """None."""
        return 0

    def flops(self, context: float) -> float:
        """None."""
        return 0

    def state_bytes(self, length: int) -> int:
        """None."""
        return 0
