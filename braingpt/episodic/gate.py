"""From the entries that a memory returns to the next token: their votes, and how far to trust them.

The entries vote for their tokens with softmax(product / temperature), as in kNN-LM (Khandelwal et al. 2020,
section 3). The share of the memory in the mixture is not constant: a gate decides it for each token, by how
near the nearest entry is and how much the entries agree. The gate does not depend on the model's prediction,
because taught tokens are those that the model finds unlikely. It is a logistic function, fitted with the
frozen model on text whose facts are in memory and on other text (`calibrate.py`), so that an irrelevant
memory is not believed.

Legend: Q positions, K entries read, V vocabulary, F features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 4
# Entries read for a token.
READ = 32
# A distance below this is rounding.
NEAR = 1e-3


def features(near_QK: Tensor, token_QK: Tensor, votes_QK: Tensor) -> Tensor:
    """(Q, F) the inputs of the gate: 1, the largest product, the log of its distance from 1, and the share of
    the votes that agree with it.
    """
    # The newest of the nearest entries.
    first_Q1 = votes_QK.argmax(1, keepdim=True)
    agree_Q = (votes_QK * (token_QK == token_QK.gather(1, first_Q1))).sum(1)
    near_Q = near_QK.gather(1, first_Q1).squeeze(1).clamp(-1, 1)
    return torch.stack((torch.ones_like(near_Q), near_Q, -torch.log(1 - near_Q + NEAR), agree_Q), 1)


@dataclass
class Gate:
    """Weights (F,) of the features, and the temperature of the votes."""

    weight_F: Tensor
    temperature: Tensor

    def mix(self, logits_QV: Tensor, near_QK: Tensor, token_QK: Tensor) -> Tensor:
        """Mix the model's prediction with the memory's votes, by the memory's share g of each position.

        Args:
            logits_QV: The model's logits.
            near_QK: Products of the entries read.
            token_QK: Tokens of the entries read.

        Returns:
            Log-probabilities (Q, V) of (1 - g) model + g votes, in float32.
        """
        log_p_QV = torch.log_softmax(logits_QV.float(), 1)
        log_odds_Q1, votes_QK = self.trust(near_QK, token_QK)
        votes_QV = torch.zeros_like(log_p_QV).scatter_add_(1, token_QK, votes_QK)
        return torch.logaddexp(
            log_p_QV + F.logsigmoid(-log_odds_Q1), votes_QV.log() + F.logsigmoid(log_odds_Q1)
        )

    def trust(self, near_QK: Tensor, token_QK: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds (Q, 1) of the memory's share g, and the votes (Q, K) of the entries read."""
        votes_QK = torch.softmax(near_QK / self.temperature.to(near_QK.device), 1)
        seen_QF = features(near_QK, token_QK, votes_QK)
        return seen_QF @ self.weight_F.to(seen_QF.device)[:, None], votes_QK


def fit_gate(examples: list[tuple[Tensor, ...]], steps: int = 60) -> Gate:
    """The gate that predicts the targets of examples best.

    Args:
        examples: Products (Q, K) and tokens (Q, K) read, targets (Q,), and the model's probability of these.
        steps: Iterations of L-BFGS, at most.
    """
    near_QK, token_QK, target_Q, p_Q = (torch.cat(part).cpu() for part in zip(*examples, strict=True))
    weight_F = torch.tensor([-4.0, 0.0, 1.0, 0.0]).requires_grad_()
    log_temperature = torch.tensor(-3.0).requires_grad_()
    optimizer = torch.optim.LBFGS([weight_F, log_temperature], max_iter=steps, line_search_fn="strong_wolfe")

    def nats() -> Tensor:
        optimizer.zero_grad()
        votes_QK = torch.softmax(near_QK / log_temperature.exp(), 1)
        share_Q = torch.sigmoid(features(near_QK, token_QK, votes_QK) @ weight_F)
        recalled_Q = (votes_QK * (token_QK == target_Q[:, None])).sum(1)
        loss = (
            -((1 - share_Q) * p_Q + share_Q * recalled_Q).clamp(min=1e-9).log().mean()
            + 1e-5 * weight_F.square().sum()
        )
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(nats)
    return Gate(weight_F.detach(), log_temperature.detach().exp())
