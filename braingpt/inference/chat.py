"""A conversation that keeps the model's state between turns: every token is read once.

Format: `<|ko|> <|user|> question <|assistant|> answer <|user|> ...`. The answer ends where the model writes
`<|endoftext|>` or `<|user|>`. Models trained on plain text have never seen these tokens: they continue the
text instead of answering.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

import torch

from braingpt.inference.engine import Decoder, check_prompt_fits, draw
from braingpt.inference.sampling import Sampler, Sampling, SamplingOptions
from braingpt.inference.text_stream import TEMPERATURE, non_text_tokens, prompt_ids
from braingpt.model.interface import CausalModel
from braingpt.model.memory_limits import require_state

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer


class Conversation:
    """Turns of one conversation.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        language: Language code of the conversation; None: the first turn's.
        max_new_tokens: Largest number of tokens of an answer.
        **sampling: As in `braingpt.inference.engine.stream`, but with a temperature of 0.8. The repetition
            penalty applies to tokens of all turns.
    """

    def __init__(
        self,
        model: CausalModel,
        tokenizer: "Tokenizer",
        *,
        language: str | None = None,
        max_new_tokens: int = 200,
        **sampling: Unpack[SamplingOptions],
    ) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        # Tokens that the model has read in all turns, each once.
        self.tokens_read = 0
        self._stop = {tokenizer.eot, tokenizer.user}
        banned = tuple(i for i in non_text_tokens(tokenizer) if i not in self._stop)
        sampling.setdefault("temperature", TEMPERATURE)
        self._sampler = Sampler(Sampling(**sampling, banned=banned))
        self._decoder = Decoder(model)
        self._unread = prompt_ids(tokenizer, None, language) if language else []

    def say(self, text: str) -> Iterator[str]:
        """Answer one turn.

        Args:
            text: What the user says, which is cleaned as a prompt is.

        Returns:
            An iterator over pieces of the answer; exhaust it before the next turn.

        Raises:
            UserError: The text is not valid Unicode, or the conversation does not fit into memory.
        """
        turn = [self.tokenizer.user, *self.tokenizer.encode(text), self.tokenizer.assistant]
        check_prompt_fits(self._decoder.model, self.tokens_read + len(turn))
        # Without a language the first turn decides it.
        if self.tokens_read == 0 and not self._unread:
            first = self.tokenizer.encode(text, language="auto")[:1]
            self._unread = [i for i in first if i in self.tokenizer.markers.values()]
        unread = len(self._unread) + len(turn)
        require_state(self._decoder.model, unread, self.max_new_tokens, before=self.tokens_read)
        return self._answer(turn)

    def _answer(self, turn: list[int]) -> Iterator[str]:
        self._read([*self._unread, *turn])
        self._unread = []
        stream = self.tokenizer.stream()
        answered = 0
        for token in draw(self._decoder, self._sampler, self.max_new_tokens, self._stop):
            # `draw` reads a token when the next one is requested, so the newest is unread until then.
            self.tokens_read += len(self._unread)
            self._unread = [token]
            answered += 1
            if piece := stream.push(token):
                yield piece
        # A stop token ended the answer: `draw` has read the token before it.
        if answered < self.max_new_tokens:
            self.tokens_read += len(self._unread)
            self._unread = []
        if piece := stream.flush():
            yield piece

    def _read(self, ids: list[int]) -> None:
        self._sampler.note(0, ids)
        self._decoder.read(torch.tensor([ids]))
        self.tokens_read += len(ids)
