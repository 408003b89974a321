"""From a model's inner states to keys: the residual stream after a third of the layers, whitened, and with it
what came just before.

Raw states of one token in different sentences are nearly parallel, and states of one corpus share a few
strong directions; whitening by the spread seen on ordinary text makes a cosine tell them apart. Small models'
states hardly know the subject five words ago, so a key is the sum of the last TAPS whitened states, the
newest weighing most: the same words about another person then have another key. A key is of length 1 where
TAPS states stand behind it and shorter at the beginning of a text, so a product of two keys says how much of
what came before they share, and two texts that begin with the same word are not taken for one. The layer is
the last one that every token passes, however deep it goes.

Legend: B rows, L tokens, D hidden, N states.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.kernels.conv import causal_conv
from braingpt.model.sequence_layout import Layout

# of the mean variance, added to every direction's, so that silent directions are not blown up
SHRINK = 0.05
# states in a key; weight of the one before the newest, and of each further one relative to the next
TAPS, BEFORE, FALLING = 16, 0.7, 0.85


def key_layer(config: Any) -> int:
    """The number of the layer whose output the keys are made of: a third of the depth, before any token may
    halt.
    """
    return min((config.layers - 1) // 3, *(exit_ - 1 for exit_ in config.depth_exits[:1]), config.layers)


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Tensor]]:
    """States (B, L, D) of the key layer, one for each forward pass inside the `with`, oldest first."""
    seen: list[Tensor] = []
    handle = model.blocks[key_layer(model.config)].register_forward_hook(
        lambda _block, _inputs, output: seen.append(output.detach())
    )
    try:
        yield seen
    finally:
        handle.remove()


@dataclass
class KeyMaker:
    """mean (D,) and the symmetric matrix (D, D) that gives centred states unit covariance."""

    mean_D: Tensor
    matrix_DD: Tensor

    @classmethod
    def of(cls, states_ND: Tensor) -> "KeyMaker":
        """From states of ordinary text, a few thousand."""
        mean_D = states_ND.double().mean(0)
        centred_ND = states_ND.double() - mean_D
        value_D, vector_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
        scale_D = (value_D.clamp(min=0) + SHRINK * value_D.mean() + 1e-12).rsqrt()
        return cls(mean_D.float(), ((vector_DD * scale_D) @ vector_DD.T).float())

    def past(self, rows: int, device: torch.device | str) -> Tensor:
        """What stands before a text: nothing, (B, TAPS - 1, D)."""
        return torch.zeros(rows, TAPS - 1, len(self.mean_D), device=device)

    def keys(self, states_BLD: Tensor, past_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Keys (B, L, D) of length <= 1 in float32, and the past of what follows.

        Padding and other documents leave no trace in a key.
        """
        mean_D, matrix_DD = self.mean_D.to(states_BLD.device), self.matrix_DD.to(states_BLD.device)
        unit_BLD = F.normalize((states_BLD.float() - mean_D) @ matrix_DD, dim=-1)
        if layout.valid is not None:
            unit_BLD = unit_BLD * layout.valid[..., None]
        weight = [BEFORE * FALLING**k for k in reversed(range(TAPS - 1))] + [1.0]
        weight_DT = torch.tensor(weight, device=unit_BLD.device).expand(unit_BLD.shape[-1], -1)
        sum_BLD = causal_conv(unit_BLD, weight_DT, past_BTD, layout.segment)
        # the length of a sum of states that have nothing in common
        whole = sum(w * w for w in weight) ** 0.5
        return sum_BLD / sum_BLD.norm(dim=-1, keepdim=True).clamp(min=whole), torch.cat(
            [past_BTD, unit_BLD], 1
        )[:, 1 - TAPS :]
