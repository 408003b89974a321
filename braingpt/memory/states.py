"""From a model's inner state to a key: the residual stream after a third of the layers, centred, whitened, of length 1.

Raw states of one token in different sentences are nearly parallel, and states of one corpus share a few strong directions; whitening by the spread
seen on ordinary text makes a cosine tell them apart. The layer is the last one that every token passes, however deep it goes.

Legend: B rows, L tokens, D hidden.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHRINK = 0.05  # of the mean variance, added to every direction's, so that silent directions are not blown up


def key_layer(layers: int) -> int:
    """The number of the layer whose output the keys are made of."""
    return (layers - 1) // 3


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Tensor]]:
    """States (B, L, D) of the key layer, one for each forward pass inside the `with`, oldest first."""
    seen: list[Tensor] = []
    handle = model.blocks[key_layer(len(model.blocks))].register_forward_hook(lambda _block, _inputs, output: seen.append(output.detach()))
    try:
        yield seen
    finally:
        handle.remove()


@dataclass
class Whitening:
    """mean (D,) and the symmetric matrix (D, D) that gives centred states unit covariance."""

    mean_D: Tensor
    matrix_DD: Tensor

    @classmethod
    def of(cls, states_ND: Tensor) -> "Whitening":
        """From states of ordinary text, a few thousand."""
        mean_D = states_ND.double().mean(0)
        centred_ND = states_ND.double() - mean_D
        value_D, vector_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
        scale_D = (value_D.clamp(min=0) + SHRINK * value_D.mean() + 1e-12).rsqrt()
        return cls(mean_D.float(), ((vector_DD * scale_D) @ vector_DD.T).float())

    def keys(self, states_ND: Tensor) -> Tensor:
        """Unit vectors (N, D) in float32."""
        mean_D, matrix_DD = self.mean_D.to(states_ND.device), self.matrix_DD.to(states_ND.device)
        return F.normalize((states_ND.float() - mean_D) @ matrix_DD, dim=-1)
