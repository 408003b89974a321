"""From what the memory answers to the next token: how alike counts as the same, and how far to trust it.

The entries read vote for their tokens with softmax(cosine / temperature), as in kNN-LM (Khandelwal et al. 2020, section 3), but the share of the memory
in the mixture is no constant: a gate decides it for each token from how near the nearest entry is, how much the entries agree, and how sure the model
is itself. It is a logistic function of six figures, fitted after training, with the model frozen, on text read with its own facts in memory and on
text read with foreign ones (`calibrate.py`), so that an irrelevant memory is not believed.

Legend: Q positions, K entries read, V vocabulary, F figures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from braingpt.memory.store import SILENT

FIGURES = 6
READ = 32  # entries a token
NEAR = 1e-3  # below this, cosines are equal to 1 up to rounding


@dataclass
class Answer:
    """What the gate looks at. Votes (Q, K) sum to 1 a position; `token_QK` the tokens voted for; figures (Q, F)."""

    votes_QK: Tensor
    token_QK: Tensor
    figures_QF: Tensor


def answer(log_p_QV: Tensor, cosine_QK: Tensor, token_QK: Tensor, temperature: Tensor) -> Answer:
    """Votes and figures for log-probabilities of the model and entries read from the memory, nearest first."""
    votes_QK = torch.softmax(cosine_QK / temperature, 1)
    first_Q1 = votes_QK.argmax(1, keepdim=True)  # the newest of the nearest
    token_Q1 = token_QK.gather(1, first_Q1)
    agree_Q = (votes_QK * (token_QK == token_Q1)).sum(1)
    top_Q = cosine_QK.gather(1, first_Q1).squeeze(1).clamp(-1, 1)
    sure_Q = log_p_QV.amax(1).exp()
    expected_Q = log_p_QV.gather(1, token_Q1).squeeze(1).clamp(min=-20) / 10
    figures = (torch.ones_like(top_Q), top_Q, -torch.log(1 - top_Q + NEAR), agree_Q, sure_Q, expected_Q)
    return Answer(votes_QK, token_QK, torch.stack(figures, 1))


@dataclass
class Gate:
    """Weights (F,) of the figures, and the temperature of the votes. A fresh gate is shut."""

    weight_F: Tensor
    temperature: Tensor

    @classmethod
    def shut(cls) -> "Gate":
        """A gate that believes nothing."""
        weight_F = torch.zeros(FIGURES)
        weight_F[0] = -20.0
        return cls(weight_F, torch.tensor(0.05))

    def mix(self, logits_QV: Tensor, cosine_QK: Tensor, token_QK: Tensor) -> Tensor:
        """Log-probabilities (Q, V) of (1 - g) model + g votes, in float32."""
        log_p_QV = torch.log_softmax(logits_QV.float(), 1)
        if cosine_QK.shape[1] == 0:
            return log_p_QV
        found = answer(log_p_QV, cosine_QK, token_QK, self.temperature.to(log_p_QV.device))
        log_odds_Q1 = (found.figures_QF @ self.weight_F.to(log_p_QV.device))[:, None]
        votes_QV = torch.zeros_like(log_p_QV).scatter_add_(1, found.token_QK, found.votes_QK)
        kept_QV = log_p_QV + torch.nn.functional.logsigmoid(-log_odds_Q1)
        return torch.logaddexp(kept_QV, votes_QV.log() + torch.nn.functional.logsigmoid(log_odds_Q1))


def fit(examples: list[tuple[Tensor, Tensor, Tensor, Tensor]], steps: int = 60) -> Gate:
    """The gate that gives least nats to the targets of examples (log-probabilities (Q, V), cosines, tokens, targets (Q,))."""
    gate = Gate.shut()
    weight_F, log_temperature = gate.weight_F.clone(), gate.temperature.log()
    weight_F[0], weight_F[2] = -4.0, 1.0
    weight_F.requires_grad_(), log_temperature.requires_grad_()
    optimizer = torch.optim.LBFGS([weight_F, log_temperature], max_iter=steps, line_search_fn="strong_wolfe")
    # Of the vocabulary only three figures of the model enter: its largest probability, the target's, and that of each token read.
    parts = [(p.gather(1, y[:, None]), p.amax(1, keepdim=True), p.gather(1, t), c, t, y) for p, c, t, y in examples]
    target, largest, read, cosine, token, wanted = (_stacked(part) for part in zip(*parts, strict=True))

    def nats() -> Tensor:
        optimizer.zero_grad()
        votes_QK = torch.softmax(cosine / log_temperature.exp(), 1)
        first = votes_QK.argmax(1, keepdim=True)
        agree = (votes_QK * (token == token.gather(1, first))).sum(1, keepdim=True)
        top = cosine.gather(1, first).clamp(-1, 1)
        figures = (torch.ones_like(top), top, -torch.log(1 - top + NEAR), agree, largest.exp(), read.gather(1, first).clamp(min=-20) / 10)
        log_odds = torch.cat(figures, 1) @ weight_F
        hit = (votes_QK * (token == wanted[:, None])).sum(1)
        share = torch.sigmoid(log_odds)
        loss = -((1 - share) * target[:, 0].exp() + share * hit).clamp(min=1e-9).log().mean() + 1e-5 * weight_F.square().sum()
        loss.backward()
        return loss

    optimizer.step(nats)
    return Gate(weight_F.detach(), log_temperature.detach().exp())


def _stacked(parts: tuple[Tensor, ...]) -> Tensor:
    """All positions under each other; fewer than K entries read are filled up with ones that have no vote."""
    width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    fill = SILENT if parts[0].is_floating_point() else 0
    return torch.cat([part if part.ndim == 1 else torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])
