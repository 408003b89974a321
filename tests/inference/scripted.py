"""A stand-in model that writes a script and remembers everything it was given to read."""

from types import SimpleNamespace

import torch
from torch import nn

from braingpt.model.interface import CausalModel, Output
from braingpt.tokenizer import Tokenizer


class Scripted(CausalModel):
    """After the n-th token chosen it prefers script[n]; past the script's end it prefers the end of the
    document.
    """

    def __init__(self, script: list[int], tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        tokenizer = tokenizer or Tokenizer.default()
        self.config = SimpleNamespace(vocab=tokenizer.vocab_size)
        self.script, self.eot = list(script), tokenizer.eot
        self.read: list[int] = []
        self.weight = nn.Parameter(torch.zeros(1))
        self.chosen = 0
        self.device = torch.device("cpu")

    def new_state(self, batch: int = 1) -> list[int]:
        return []

    def forward(
        self, ids_BL, targets_BL=None, state=None, segments_BL=None, reduction="mean", last=False
    ) -> Output:
        self.read += ids_BL[0].tolist()
        return Output(logits=self._next()[:, None].expand(1, 1 if last else ids_BL.shape[1], -1), state=state)

    def step(self, ids_B, state):
        self.read += ids_B.tolist()
        return self._next()

    def _next(self):
        logits_BV = torch.zeros(1, self.config.vocab)
        logits_BV[0, self.script[self.chosen] if self.chosen < len(self.script) else self.eot] = 20.0
        self.chosen += 1
        return logits_BV
