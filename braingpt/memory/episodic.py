"""Episodic memory of one model: teach it a text once, let it read while it writes.

    memory = EpisodicMemory.fresh(model, tokenizer, weights)     # weights: the hash of the model's weights, kept in the file
    memory.teach(model, tokenizer, "내 고양이 이름은 콩이예요.")
    model = Remembering(model, memory)                           # a model like any other: step, generate, evaluate, serve

`Remembering` changes logits only. With nothing in memory they are the model's own.

Legend: B rows, L tokens, D hidden, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.errors import UserError
from braingpt.inference.engine import evaluating
from braingpt.memory.gate import READ, Gate
from braingpt.memory.states import Whitening, watching
from braingpt.memory.store import Store
from braingpt.model.lm import Output

SURPRISE = 0.69  # nats: what the model gives at least half of its probability is what it writes anyway, and needs no entry
WINDOW = 512  # tokens of a long text read at once


@dataclass
class EpisodicMemory:
    """The store, and what turns states into keys and answers into probabilities. `weights`: SHA-256 of the model it belongs to."""

    weights: str
    whitening: Whitening
    gate: Gate
    store: Store
    about: dict[str, Any]  # of the model, for people: recipe, step

    @classmethod
    def fresh(cls, model: nn.Module, tokenizer: Any, weights: str, about: dict[str, Any] | None = None) -> "EpisodicMemory":
        """An empty memory whose gate is fitted to the model on the built-in corpus, which takes seconds."""
        from braingpt.memory.calibrate import calibrate

        whitening, gate = calibrate(model, tokenizer)
        return cls(weights, whitening, gate, Store(model.config.hidden), about or {})

    def teach(self, model: nn.Module, tokenizer: Any, text: str, language: str | None = None) -> tuple[int, int]:
        """Write what surprises the model in `text`: its number and its entries. A text that is there keeps its number.

        Raises UserError for an empty text.
        """
        text = text.strip()
        if not text:
            raise UserError("there is nothing to remember in an empty text")
        number = self.store.number_of(text)
        if number is None:
            number = self.store.write(text, *self.episodes(model, [*tokenizer.encode(text, language=language or "auto"), tokenizer.eot]))
        return number, self.store.entries_of(number)

    def episodes(self, model: nn.Module, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Keys (N, D) and tokens (N,) where the model, reading `ids`, gave the next token less than half."""
        keys, values, state = [], [], model.new_state(1)
        device = next(model.parameters()).device
        with evaluating(model), watching(model) as seen:
            for start in range(0, len(ids) - 1, WINDOW):
                part, after = (torch.tensor(ids[start + i : min(start + WINDOW, len(ids) - 1) + i], device=device) for i in (0, 1))
                out = model(part[None], state=state)
                state = out.state
                surprised_L = F.cross_entropy(out.logits[0].float(), after, reduction="none") > SURPRISE
                keys.append(self.whitening.keys(seen.pop()[0][surprised_L]))
                values.append(after[surprised_L])
        return torch.cat(keys), torch.cat(values)


class Remembering(nn.Module):
    """A language model whose predictions are mixed with what the memory recalls at each token."""

    def __init__(self, model: nn.Module, memory: EpisodicMemory) -> None:
        super().__init__()
        self.model, self.memory, self.config = model, memory, model.config

    def forward(
        self, ids_BL: Tensor, targets_BL: Tensor | None = None, state=None, segments_BL: Tensor | None = None, reduction: str = "mean"
    ) -> Output:
        """As `LanguageModel.forward`; logits are log-probabilities where there is a memory to read."""
        if not len(self.memory.store):
            return self.model(ids_BL, targets_BL, state, segments_BL, reduction)
        with watching(self.model) as seen:
            out = self.model(ids_BL, state=state, segments_BL=segments_BL)
        keys_QD = self.memory.whitening.keys(seen[-1].flatten(0, 1))
        logits_BLV = self.memory.gate.mix(out.logits.flatten(0, 1), *self.memory.store.read(keys_QD, READ)).view_as(out.logits)
        if targets_BL is None:
            return Output(logits=logits_BLV, state=out.state)
        loss = F.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), reduction=reduction)
        return Output(loss=loss.view_as(targets_BL) if reduction == "none" else loss, state=out.state)

    def new_state(self, batch: int = 1):
        """A state that has read nothing."""
        return self.model.new_state(batch)

    def step(self, ids_B: Tensor, state) -> Tensor:
        """One token more for each row: logits (B, V)."""
        return self(ids_B[:, None], state=state).logits[:, -1]
