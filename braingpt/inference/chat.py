"""A conversation that keeps the model's state between turns: every token is read once, however long the talk.

Layout: `<|ko|> <|user|> question <|assistant|> answer <|user|> ...`. The answer ends where the model writes
`<|endoftext|>` or `<|user|>`. Models trained on plain text have never seen these tokens; they continue rather
than answer.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from braingpt.inference.engine import Decoder, draw
from braingpt.inference.sampling import Sampler, Sampling
from braingpt.inference.text_stream import prompt_ids, unwritable


class Conversation:
    """Turns of one talk with `model`; the settings hold for all of them."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        language: str | None = None,
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        # by the model, in all turns: each exactly once
        self.tokens_read = 0
        self._stop = {tokenizer.eot, tokenizer.user}
        banned = tuple(i for i in unwritable(tokenizer) if i not in self._stop)
        self._sampler = Sampler(Sampling(temperature, top_k, top_p, seed, banned))
        self._decoder = Decoder(model)
        self._unread = prompt_ids(tokenizer, None, language) if language else []

    def say(self, text: str) -> Iterator[str]:
        """The answer to one turn, in pieces.

        Finish the iteration before the next turn. Raises UserError for text that is not Unicode.
        """
        turn = [self.tokenizer.user, *self.tokenizer.encode(text), self.tokenizer.assistant]
        # the first turn decides the language when nobody named one
        if self.tokens_read == 0 and not self._unread:
            marker = next(
                (
                    i
                    for i in self.tokenizer.encode(text, language="auto")[:1]
                    if i in self.tokenizer.markers.values()
                ),
                None,
            )
            self._unread = [] if marker is None else [marker]
        return self._answer(turn)

    def _answer(self, turn: list[int]) -> Iterator[str]:
        self._read([*self._unread, *turn])
        self._unread = []
        stream = self.tokenizer.stream()
        answered = 0
        for token in draw(self._decoder, self._sampler, self.max_new_tokens, self._stop):
            # `draw` reads a token when the next one is asked for, so the newest is unread until then.
            self.tokens_read += len(self._unread)
            self._unread = [token]
            answered += 1
            if piece := stream.push(token):
                yield piece
        # ended by a stop token: `draw` has read the one before
        if answered < self.max_new_tokens:
            self.tokens_read += len(self._unread)
            self._unread = []
        if piece := stream.flush():
            yield piece

    def _read(self, ids: list[int]) -> None:
        self._decoder.read(torch.tensor([ids]))
        self.tokens_read += len(ids)
