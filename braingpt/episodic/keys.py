"""From a model's inner states to keys, and the entries that a text gives.

A key is made of the residual stream after a third of the layers. Raw states of one token in different
sentences are nearly parallel, and states of one corpus share a few strong directions; whitening by the spread
of ordinary text makes the cosine distinguish them. States of small models hardly know the subject five words
ago, so a key is the sum of the last TAPS whitened states, the newest with the largest weight: the same words
about another person then have another key.

A key has length 1 where it sums TAPS equal states, and is shorter at the beginning of a text. The product of
two keys therefore measures how much of the preceding text they share, and two texts that begin with the same
word are not taken for one. Every token passes the layer, whatever its depth.

Legend: B rows, L tokens, D hidden, N states or entries.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from braingpt.device.eval_mode import eval_mode
from braingpt.kernels.conv import causal_conv
from braingpt.model.config import ModelConfig
from braingpt.model.lm import LanguageModel
from braingpt.model.sequence_layout import Layout

# Share of the mean variance that is added to every direction, so that whitening does not amplify silent ones.
SHRINK = 0.05
# States that a key sums.
TAPS = 16
# Weight of the state before the newest, whose weight is 1; each earlier one has DECAY times the next one's.
SECOND_WEIGHT, DECAY = 0.7, 0.85
# Nats above which a token is written. A token to which the model gives at least half of its probability needs
# no entry, because the model writes it anyway.
SURPRISE = 0.69
# Tokens of a long text read at a time.
WINDOW = 512


def key_layer(config: ModelConfig) -> int:
    """The layer whose output makes the keys, from 0: at a third of the depth, before any token may halt."""
    return min((config.layers - 1) // 3, *(exit_ - 1 for exit_ in config.depth_exits[:1]), config.layers)


@contextmanager
def capture_states(model: LanguageModel) -> Iterator[list[Tensor]]:
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
    """Whitens states and sums them to keys."""

    # Mean of the states of ordinary text, and the symmetric matrix that gives centred states unit covariance.
    mean_D: Tensor
    matrix_DD: Tensor

    @classmethod
    def of(cls, states_ND: Tensor) -> "KeyMaker":
        """Fit the whitening to ordinary text.

        Args:
            states_ND: A few thousand states of the key layer.
        """
        mean_D = states_ND.double().mean(0)
        centred_ND = states_ND.double() - mean_D
        value_D, vector_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
        scale_D = (value_D.clamp(min=0) + SHRINK * value_D.mean() + 1e-12).rsqrt()
        return cls(mean_D.float(), ((vector_DD * scale_D) @ vector_DD.T).float())

    def past(self, rows: int, device: torch.device | str) -> Tensor:
        """The whitened states before a text, (B, TAPS - 1, D): zeros."""
        return torch.zeros(rows, TAPS - 1, len(self.mean_D), device=device)

    def keys(self, states_BLD: Tensor, past_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Keys of states; padding and other documents leave no trace in a key.

        Args:
            states_BLD: States of the key layer.
            past_BTD: The TAPS - 1 whitened states before them.
            layout: The layout of the tokens.

        Returns:
            Keys (B, L, D) of length 1 or less in float32, and the past of the tokens that follow.
        """
        mean_D, matrix_DD = self.mean_D.to(states_BLD.device), self.matrix_DD.to(states_BLD.device)
        unit_BLD = F.normalize((states_BLD.float() - mean_D) @ matrix_DD, dim=-1)
        if layout.valid is not None:
            unit_BLD = unit_BLD * layout.valid[..., None]
        weight = [SECOND_WEIGHT * DECAY**k for k in reversed(range(TAPS - 1))] + [1.0]
        weight_DT = torch.tensor(weight, device=unit_BLD.device).expand(unit_BLD.shape[-1], -1)
        sum_BLD = causal_conv(unit_BLD, weight_DT, past_BTD, layout.segment)
        # The length of a sum of orthogonal states.
        least = sum(w * w for w in weight) ** 0.5
        keys_BLD = sum_BLD / sum_BLD.norm(dim=-1, keepdim=True).clamp(min=least)
        return keys_BLD, torch.cat([past_BTD, unit_BLD], 1)[:, 1 - TAPS :]


def surprising_entries(
    model: LanguageModel,
    maker: KeyMaker,
    ids: list[int],
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, Tensor]:
    """The entries of a text: one at each place where the next token surprises the model.

    Args:
        model: The model.
        maker: Turns states into keys.
        ids: The text's tokens.
        progress: Receives the share of the tokens that is read.

    Returns:
        Keys (N, D) and tokens (N,).
    """
    device = model.device
    keys, values, state, past_BTD = [], [], model.new_state(1), maker.past(1, device)
    with eval_mode(model), capture_states(model) as seen:
        for start in range(0, len(ids) - 1, WINDOW):
            end = min(start + WINDOW, len(ids) - 1)
            read_BL = torch.tensor([ids[start:end]], device=device)
            next_L = torch.tensor(ids[start + 1 : end + 1], device=device)
            out = model(read_BL, next_L[None], state=state, reduction="none")
            keys_BLD, past_BTD = maker.keys(seen.pop(), past_BTD, Layout.of(read_BL, None, None))
            surprised_L = out.loss[0] > SURPRISE
            keys.append(keys_BLD[0, surprised_L])
            values.append(next_L[surprised_L])
            state = out.state
            progress(end / (len(ids) - 1))
    return torch.cat(keys), torch.cat(values)
