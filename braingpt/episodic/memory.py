"""Episodic memory of one model: teach it a text once, let it read while it writes.

    memory = EpisodicMemory.fresh(model, tokenizer, weights)     # weights: the hash of the model's weights,
    kept in the file
    memory.teach(model, tokenizer, "내 고양이 이름은 콩이예요.")
    model = Remembering(model, memory)                           # a model like any other: step, generate,
    evaluate, serve

`Remembering` changes logits only. With nothing in memory they are the model's own.

Legend: B rows, L tokens, D hidden, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from braingpt.device.eval_mode import eval_mode
from braingpt.episodic.gate import READ, Gate
from braingpt.episodic.keys import KeyMaker, watching
from braingpt.episodic.store import Store
from braingpt.errors import UserError
from braingpt.model.lm import Output, State
from braingpt.model.sequence_layout import Layout

# nats: what the model gives at least half of its probability is what it writes anyway, and needs no entry
SURPRISE = 0.69
# tokens of a long text read at once
WINDOW = 512


@dataclass
class EpisodicMemory:
    """The store, and what turns states into keys and answers into probabilities.

    `weights`: SHA-256 of the model it belongs to.
    """

    weights: str
    maker: KeyMaker
    gate: Gate
    store: Store
    # of the model, for people: recipe, step
    about: dict[str, Any]

    @classmethod
    def fresh(
        cls, model: nn.Module, tokenizer: Any, weights: str, about: dict[str, Any] | None = None
    ) -> "EpisodicMemory":
        """An empty memory whose keys and gate are fitted to the model on the built-in corpus, which takes
        seconds.
        """
        from braingpt.episodic.calibrate import calibrate

        maker, gate = calibrate(model, tokenizer)
        return cls(weights, maker, gate, Store(model.config.hidden), about or {})

    def teach(
        self, model: nn.Module, tokenizer: Any, text: str, language: str | None = None
    ) -> tuple[int, int]:
        """Write what surprises the model in `text`: its number and its entries.

        A text that is there keeps its number.

        Raises UserError for an empty text.
        """
        text = text.strip()
        if not text:
            raise UserError("there is nothing to remember in an empty text")
        number = self.store.number_of(text)
        if number is None:
            ids = [*tokenizer.encode(text, language=language or "auto"), tokenizer.eot]
            number = self.store.write(text, *episodes(model, self.maker, ids))
        return number, self.store.entries_of(number)


def episodes(model: nn.Module, maker: KeyMaker, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Keys (N, D) and tokens (N,) where the model, reading `ids`, gave the next token less than half."""
    device = model.device
    keys, values, state, past_BTD = [], [], model.new_state(1), maker.past(1, device)
    with eval_mode(model), watching(model) as seen:
        for start in range(0, len(ids) - 1, WINDOW):
            part_BL, after_BL = (
                torch.tensor([ids[start + i : min(start + WINDOW, len(ids) - 1) + i]], device=device)
                for i in (0, 1)
            )
            out = model(part_BL, state=state)
            keys_BLD, past_BTD = maker.keys(seen.pop(), past_BTD, Layout.of(part_BL, None, None))
            surprised_L = F.cross_entropy(out.logits[0].float(), after_BL[0], reduction="none") > SURPRISE
            keys.append(keys_BLD[0, surprised_L])
            values.append(after_BL[0, surprised_L])
            state = out.state
    return torch.cat(keys), torch.cat(values)


@dataclass
class RememberingState:
    """The model's state, and the whitened states that the next keys look back to."""

    model: State
    past_BTD: Tensor

    def depth(self) -> float | None:
        """As `State.depth`."""
        return self.model.depth()

    def bytes(self) -> int:
        """Bytes held for the whole batch."""
        return self.model.bytes() + self.past_BTD.numel() * self.past_BTD.element_size()


class Remembering(nn.Module):
    """A language model whose predictions are mixed with what the memory recalls at each token."""

    def __init__(self, model: nn.Module, memory: EpisodicMemory) -> None:
        super().__init__()
        self.model, self.memory, self.config, self.device = model, memory, model.config, model.device

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: RememberingState | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
        last: bool = False,
    ) -> Output:
        """As `LanguageModel.forward`; logits are log-probabilities where there is a memory to read."""
        maker, store = self.memory.maker, self.memory.store
        with watching(self.model) as seen:
            out = self.model(
                ids_BL, state=None if state is None else state.model, segments_BL=segments_BL, last=last
            )
        logits_BLV = out.logits
        if len(store):
            past_BTD = maker.past(len(ids_BL), ids_BL.device) if state is None else state.past_BTD
            keys_BLD, past_BTD = maker.keys(seen[-1], past_BTD, Layout.of(ids_BL, segments_BL, None))
            if state is not None:
                state.past_BTD = past_BTD
            read = store.read((keys_BLD[:, -1:] if last else keys_BLD).flatten(0, 1), READ)
            logits_BLV = self.memory.gate.mix(logits_BLV.flatten(0, 1), *read).view_as(logits_BLV)
        if targets_BL is None:
            return Output(logits=logits_BLV, state=state)
        loss = F.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten(), reduction=reduction)
        return Output(loss=loss.view_as(targets_BL) if reduction == "none" else loss, state=state)

    def new_state(self, batch: int = 1) -> RememberingState:
        """A state that has read nothing, for `batch` rows."""
        return RememberingState(self.model.new_state(batch), self.memory.maker.past(batch, self.device))

    def step(self, ids_B: Tensor, state: RememberingState) -> Tensor:
        """One token more for each row: logits (B, V). The state is moved on."""
        return self(ids_B[:, None], state=state).logits[:, -1]
