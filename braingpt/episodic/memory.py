"""Episodic memory of one model: taught a text once, read while the model writes.

    # `weights` is the hash of the model's weights, which the memory's file keeps.
    memory = EpisodicMemory.fresh(model, tokenizer, weights)
    memory.teach(model, tokenizer, "내 고양이 이름은 콩이예요.")
    # A model like any other: for `generate`, evaluation and the server.
    model = Remembering(model, memory)

`Remembering` changes logits only. With an empty memory they are the model's own.

Legend: B rows, L tokens, T = TAPS - 1 earlier states, D hidden, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from braingpt.data.quality.clean import clean
from braingpt.episodic.calibrate import calibrate
from braingpt.episodic.gate import READ, Gate
from braingpt.episodic.keys import KeyMaker, capture_states, surprising_entries
from braingpt.episodic.store import Store
from braingpt.errors import UserError
from braingpt.model.interface import CausalModel, Output, State
from braingpt.model.lm import LanguageModel
from braingpt.model.sequence_layout import Layout
from braingpt.tokenizer.cleaning import check_valid

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer


@dataclass
class EpisodicMemory:
    """A store of entries, the maker of its keys, and the gate that turns entries into probabilities."""

    # SHA-256 of the weights of the model that the memory belongs to.
    weights: str
    maker: KeyMaker
    gate: Gate
    store: Store
    # Facts about the model for people: recipe, step.
    about: dict[str, Any]

    @classmethod
    def fresh(
        cls,
        model: LanguageModel,
        tokenizer: "Tokenizer",
        weights: str,
        about: dict[str, Any] | None = None,
    ) -> "EpisodicMemory":
        """Make an empty memory, with keys and gate fitted to the model on the built-in corpus, in seconds.

        Args:
            model: The model.
            tokenizer: Its tokenizer.
            weights: SHA-256 of its weights (`braingpt.checkpoint.state.weights_hash`).
            about: Facts about the model for people, such as recipe and step.
        """
        maker, gate = calibrate(model, tokenizer)
        return cls(weights, maker, gate, Store(model.config.hidden), about or {})

    def teach(
        self,
        model: LanguageModel,
        tokenizer: "Tokenizer",
        text: str,
        language: str | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> tuple[int, int]:
        """Write the tokens of a text that surprise the model.

        Args:
            model: The model that the memory belongs to.
            tokenizer: Its tokenizer.
            text: The text, which is cleaned as documents are in preparation.
            language: Language code of the text; None: detected.
            progress: Receives the share of the text that is read.

        Returns:
            The number of the text and of its entries. A text that was taught before keeps its number.

        Raises:
            UserError: The text is empty or not valid Unicode, or the memory does not fit the model.
        """
        self.check_fits(model)
        check_valid(text)
        text = clean(text)
        if not text:
            raise UserError("the text is empty; give a text to remember")
        number = self.store.number_of(text)
        if number is None:
            number = self.store.write(text, *self._entries(model, tokenizer, text, language, progress))
        return number, self.store.entries_of(number)

    def check_fits(self, model: LanguageModel) -> None:
        """Check that keys and tokens are such as the model has.

        Args:
            model: The model that is to read the memory.

        Raises:
            UserError: They are not.
        """
        channels, config = self.store.keys_ND.shape[1], model.config
        largest = int(self.store.values_N.max()) if len(self.store) else 0
        if channels != config.hidden or largest >= config.vocab:
            raise UserError(
                f"the memory has keys of {channels} channels and token {largest}, the model {config.hidden} "
                f"channels and {config.vocab} tokens; name the memory of this model"
            )

    def renew(self, model: LanguageModel, tokenizer: "Tokenizer") -> int:
        """Write texts again that were taught in another form than today's cleaning gives them.

        Files of earlier versions hold texts as they were typed. The entries of a text in NFD follow tokens
        that no cleaned prompt has. Numbers and the order of writing stay; languages are detected.

        Args:
            model: The model that the memory belongs to.
            tokenizer: Its tokenizer.

        Returns:
            How many texts were written again.

        Raises:
            UserError: The memory does not fit the model.
        """
        self.check_fits(model)
        changed = {
            number: cleaned
            for number, text in self.store.texts.items()
            if (cleaned := clean(text)) != text and cleaned
        }
        for number, text in changed.items():
            self.store.rewrite(number, text, *self._entries(model, tokenizer, text))
        return len(changed)

    def _entries(
        self,
        model: LanguageModel,
        tokenizer: "Tokenizer",
        text: str,
        language: str | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens of a text that surprise the model."""
        ids = [*tokenizer.encode(text, language=language or "auto"), tokenizer.eot]
        return surprising_entries(model, self.maker, ids, progress)


@dataclass
class RememberingState:
    """The model's state, and the whitened states that the next keys need."""

    model: State
    past_BTD: Tensor

    def depth(self) -> float | None:
        """As `State.depth`."""
        return self.model.depth()

    def bytes(self) -> int:
        """Bytes held for the whole batch."""
        return self.model.bytes() + self.past_BTD.numel() * self.past_BTD.element_size()


class Remembering(CausalModel):
    """A language model whose predictions are mixed with what a memory recalls at each token."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, memory: EpisodicMemory) -> None:
        super().__init__()
        memory.check_fits(model)
        self.model, self.memory = model, memory
        self.config, self.device = model.config, model.device

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        state: RememberingState | None = None,
        segments_BL: Tensor | None = None,
        reduction: str = "mean",
        last: bool = False,
    ) -> Output:
        """Run whole sequences, as `LanguageModel.forward` does.

        Args:
            ids_BL, targets_BL, state, segments_BL, reduction, last: As in `LanguageModel.forward`.

        Returns:
            The output; logits are log-probabilities unless the memory is empty.
        """
        maker, store = self.memory.maker, self.memory.store
        inner = None if state is None else state.model
        with capture_states(self.model) as seen:
            out = self.model(ids_BL, state=inner, segments_BL=segments_BL, last=last)
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
