"""Text in, text out, as it is written: the tokenizer around the engine.

A prompt starts as a document of the training data does: with the marker of its language. Special tokens are
never written; the end of the document ends the text. Characters appear as soon as all their bytes exist, so
Hangul is never cut in the middle.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from braingpt.errors import UserError, did_you_mean
from braingpt.inference.engine import Decoder, stream


@dataclass
class TextStream:
    """What was written so far, and how long it took.

    Iterate over it to write; read the figures afterwards.
    """

    pieces: Iterator[str]
    decoder: Decoder
    prompt_tokens: int
    # of the marker the text began with
    language: str | None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    # from the start to the last token
    seconds: float = 0.0
    # reading the prompt and choosing one token; None when nothing was written
    first_token_seconds: float | None = None
    # "stop" when the model ended the text itself
    finish: str = "length"

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            self.text += piece
            yield piece

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first one over the time they took; None with fewer than two tokens."""
        steps, seconds = len(self.tokens) - 1, self.seconds - (self.first_token_seconds or 0)
        return steps / seconds if steps > 0 and seconds > 0 else None


def prompt_ids(tokenizer: Any, prompt: str | None, language: str | None = None) -> list[int]:
    """The tokens a text starts with. Without a prompt: the marker of `language`, Korean by default.

    With a prompt and no language the language is detected. Raises UserError for an unknown language or text
    that is not Unicode.
    """
    if language is not None and language not in tokenizer.markers:
        raise UserError(f"unknown language '{language}'{did_you_mean(language, tokenizer.markers)}")
    if not prompt:
        return [tokenizer.markers[language or "ko"]]
    return list(tokenizer.encode(prompt, language=language or "auto"))


def generate_text(
    model: nn.Module,
    tokenizer: Any,
    prompt: str | None = None,
    *,
    language: str | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    decoder: Decoder | None = None,
) -> TextStream:
    """Text after `prompt`, streamed: `for piece in write(...)`.

    Settings and errors as in `engine.stream` and `prompt_ids`.
    """
    ids = prompt_ids(tokenizer, prompt, language)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    decoder = decoder or Decoder(model)
    tokens = stream(
        model,
        ids,
        max_new_tokens,
        **sampling,
        stop=[tokenizer.eot],
        banned=unwritable(tokenizer),
        decoder=decoder,
    )
    names = {marker: name for name, marker in tokenizer.markers.items()}
    written = TextStream(iter(()), decoder, len(ids), names.get(ids[0]))
    written.pieces = _pieces(written, tokens, tokenizer, max_new_tokens)
    return written


def unwritable(tokenizer: Any) -> list[int]:
    """Tokens that stand for no text, save the end of the document: never to be drawn while writing text."""
    return [i for i, size in enumerate(tokenizer.token_bytes().tolist()) if size == 0 and i != tokenizer.eot]


def _pieces(written: TextStream, tokens: Iterator[int], tokenizer: Any, limit: int) -> Iterator[str]:
    decoder = tokenizer.stream()
    start = time.perf_counter()
    for token in tokens:
        written.seconds = time.perf_counter() - start
        if written.first_token_seconds is None:
            written.first_token_seconds = written.seconds
        written.tokens.append(token)
        if piece := decoder.push(token):
            yield piece
    written.finish = "length" if len(written.tokens) == limit else "stop"
    if piece := decoder.flush():
        yield piece
