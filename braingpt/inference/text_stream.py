"""Text in, text out, piece by piece: the tokenizer around the engine.

A prompt starts like a document of the training data, with the marker of its language. Special tokens are
never written; the end of the document ends the text. A character appears as soon as all its bytes are there,
so a Hangul syllable is never cut.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack

from braingpt.errors import UserError, did_you_mean
from braingpt.inference.engine import Decoder, stream
from braingpt.inference.sampling import SamplingOptions
from braingpt.model.interface import CausalModel
from braingpt.tokenizer.cleaning import clean_valid, compose

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer

# Of texts, unless another temperature is asked for.
TEMPERATURE = 0.8


@dataclass
class TextStream:
    """A text that is being generated: iterate over it for the pieces, then read the other fields."""

    pieces: Iterator[str]
    decoder: Decoder
    prompt_tokens: int
    # Language of the marker that the prompt began with.
    language: str | None
    # Tokens to generate, at most.
    limit: int = 0
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    # Seconds from the start to the last token.
    seconds: float = 0.0
    # Seconds to read the prompt and choose one token; None when nothing was written.
    first_token_seconds: float | None = None
    # "stop" when the model ended the text itself or a stop string came, "length" at the limit.
    finish: str = "length"

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            self.text += piece
            yield piece

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first one, a second; None with fewer than two tokens."""
        steps, seconds = len(self.tokens) - 1, self.seconds - (self.first_token_seconds or 0)
        return steps / seconds if steps > 0 and seconds > 0 else None


def prompt_ids(tokenizer: "Tokenizer", prompt: str | None, language: str | None = None) -> list[int]:
    """The tokens that a text starts with.

    Args:
        tokenizer: The tokenizer.
        prompt: The text, which is cleaned; empty or None: only the marker of the language.
        language: Language code; None: detected from the prompt, Korean without a prompt.

    Raises:
        UserError: The language is unknown, or the prompt is not valid Unicode.
    """
    if language is not None and language not in tokenizer.markers:
        raise UserError(f"unknown language '{language}'{did_you_mean(language, tokenizer.markers)}")
    prompt = clean_valid(prompt or "")
    if not prompt:
        return [tokenizer.markers[language or "ko"]]
    return list(tokenizer.encode(prompt, language=language or "auto"))


def generate_text(
    model: CausalModel,
    tokenizer: "Tokenizer",
    prompt: str | None = None,
    *,
    language: str | None = None,
    max_new_tokens: int = 200,
    stop: Sequence[str] = (),
    decoder: Decoder | None = None,
    **sampling: Unpack[SamplingOptions],
) -> TextStream:
    """Generate text after a prompt: `for piece in generate_text(...)`.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: The text to continue, as in `prompt_ids`.
        language: Language code of the text, as in `prompt_ids`.
        max_new_tokens: Largest number of new tokens.
        stop: Strings that end the text; the first of them and what follows are left out.
        decoder, **sampling: As in `engine.stream`, but with a temperature of 0.8.

    Returns:
        A stream over pieces of the text.

    Raises:
        UserError: As `prompt_ids` and `engine.stream` raise it, at the call.
    """
    sampling.setdefault("temperature", TEMPERATURE)
    ids = prompt_ids(tokenizer, prompt, language)
    decoder = decoder or Decoder(model)
    tokens = stream(
        model,
        ids,
        max_new_tokens,
        stop=[tokenizer.eot],
        banned=non_text_tokens(tokenizer),
        decoder=decoder,
        **sampling,
    )
    languages = {marker: code for code, marker in tokenizer.markers.items()}
    text = TextStream(iter(()), decoder, len(ids), languages.get(ids[0]), max_new_tokens)
    text.pieces = _pieces(text, tokens, tokenizer, max_new_tokens)
    if stop:
        # Not cleaned: a string with a character that no text has would end the text at its remainder.
        text.pieces = _before(text, text.pieces, [compose(string) for string in stop])
    return text


def generate(
    model: CausalModel,
    tokenizer: "Tokenizer",
    prompt: str | None = None,
    *,
    language: str | None = None,
    max_new_tokens: int = 200,
    **sampling: Unpack[SamplingOptions],
) -> str:
    """Generate text after a prompt, up to the end of the text or `max_new_tokens`.

    Args:
        model: The model; also one with a memory.
        tokenizer, prompt, language, max_new_tokens, **sampling: As in `generate_text`.

    Returns:
        The new text, without the prompt.

    Raises:
        UserError: As in `generate_text`.
    """
    text = generate_text(
        model, tokenizer, prompt, language=language, max_new_tokens=max_new_tokens, **sampling
    )
    return "".join(text)


def non_text_tokens(tokenizer: "Tokenizer") -> list[int]:
    """Tokens without text, except the end of the document: they are never chosen while writing text."""
    return [i for i, size in enumerate(tokenizer.token_bytes().tolist()) if size == 0 and i != tokenizer.eot]


def _pieces(text: TextStream, tokens: Iterator[int], tokenizer: "Tokenizer", limit: int) -> Iterator[str]:
    decoder = tokenizer.stream()
    start = time.perf_counter()
    for token in tokens:
        text.seconds = time.perf_counter() - start
        if text.first_token_seconds is None:
            text.first_token_seconds = text.seconds
        text.tokens.append(token)
        if piece := decoder.push(token):
            yield piece
    text.finish = "length" if len(text.tokens) == limit else "stop"
    if piece := decoder.flush():
        yield piece


def _before(text: TextStream, pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first stop string; an end that may become one is held back until it is known."""
    longest, held = max(map(len, stops)), ""
    for piece in pieces:
        held += piece
        if ends := [at for stop in stops if (at := held.find(stop)) >= 0]:
            text.finish = "stop"
            if held[: min(ends)]:
                yield held[: min(ends)]
            return
        tails = range(min(longest - 1, len(held)), 0, -1)
        keep = next((n for n in tails if any(stop.startswith(held[-n:]) for stop in stops)), 0)
        if len(held) > keep:
            yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    if held:
        yield held
