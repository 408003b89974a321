"""Generation: read the prompt once, then one step a token. No part of the prefix is computed twice.

    generate(model, ids, max_new_tokens=50)          # list of new ids
    stream(model, ids, max_new_tokens=50)            # the same ids, one at a time
    generate_batch(model, [a, b], max_new_tokens=50) # prompts of different lengths; row i uses seed + i

All three run on a `Decoder`: a model, its state, and the distribution of the next token. Chat keeps one
decoder for all turns.

Shapes: B rows, L positions, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from braingpt.device.eval_mode import eval_mode
from braingpt.device.free_memory import free_memory
from braingpt.errors import UserError
from braingpt.inference.sampling import Sampler, Sampling, SamplingOptions, check_ids, check_special_ids
from braingpt.model.heads.head import NextTokens
from braingpt.model.interface import CausalModel, GenerationState
from braingpt.model.memory_limits import require_state
from braingpt.utils.arguments import whole_number

# Tokens of a prompt that are read at once: a longer one takes no more memory than its state.
READ_AT_ONCE = 8192


class Decoder:
    """A model with the state of the text read so far, and the distribution of the next token."""

    def __init__(self, model: CausalModel, rows: int = 1) -> None:
        self.model: CausalModel = model
        self.device = model.device
        self.state: GenerationState = model.new_state(rows)
        # None before anything was read.
        self.next_tokens: NextTokens | None = None

    def read(self, ids_BL: Tensor, segments_BL: Tensor | None = None) -> None:
        """Read tokens after those read before.

        Args:
            ids_BL: Token ids, at least one a row.
            segments_BL: -1 at padding, which is on the left only, 0 elsewhere; None: no padding.
        """
        parts = [ids_BL] if segments_BL is not None else ids_BL.split(READ_AT_ONCE, dim=1)
        with eval_mode(self.model):
            for part_BL in parts:
                self.next_tokens = self.model.next_tokens(part_BL.to(self.device), self.state, segments_BL)

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far passed; None before anything was read."""
        return self.state.depth()

    def step(self, ids_B: Tensor) -> None:
        """Read one token of each row.

        Args:
            ids_B: The tokens.
        """
        with eval_mode(self.model):
            self.next_tokens = self.model.next_tokens(ids_B[:, None], self.state)

    def sample(self, sampler: Sampler) -> Tensor:
        """Choose the next token of each row, without reading it.

        Args:
            sampler: Chooses the token.

        Returns:
            Token ids (B,).

        Raises:
            ValueError: The decoder has read nothing.
        """
        if self.next_tokens is None:
            raise ValueError("the decoder has read nothing to continue from")
        return sampler(self.next_tokens)


def stream(
    model: CausalModel,
    ids: Sequence[int],
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
    decoder: Decoder | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[int]:
    """Generate after a prompt, one token at a time.

    Args:
        model: The model.
        ids: The prompt's token ids, at least one.
        max_new_tokens: Largest number of new tokens.
        stop: Tokens that end the text; they are not yielded.
        banned: Tokens that are never chosen.
        decoder: A decoder of the model with a single row: the prompt continues what it has read. None: a new
            one.
        **sampling: temperature (1.0), top_k, top_p, min_p, repetition_penalty (1.0) and seed, as in
            `braingpt.inference.sampling.Sampling`. The penalty applies to tokens of the prompt and the text.

    Returns:
        An iterator over the new token ids.

    Raises:
        UserError: The prompt is empty or does not fit into memory, an id is outside the vocabulary, or a
            setting is out of range. It is raised at the call, not at the first token.
    """
    vocab = model.config.vocab
    sampler = Sampler(Sampling(**sampling, banned=check_special_ids("banned", banned, vocab)))
    ids = check_ids(ids, vocab)
    sampler.note(0, ids)
    limit = whole_number("the number of new tokens", max_new_tokens)
    stop = frozenset(check_special_ids("stop", stop, vocab))
    check_prompt_fits(model, len(ids))
    require_state(model, len(ids), limit)
    return _stream(decoder or Decoder(model), ids, limit, sampler, stop)


def _stream(
    decoder: Decoder, ids: list[int], max_new_tokens: int, sampler: Sampler, stop: frozenset[int]
) -> Iterator[int]:
    if max_new_tokens == 0:
        return
    decoder.read(torch.tensor([ids]))
    yield from draw(decoder, sampler, max_new_tokens, stop)


def draw(decoder: Decoder, sampler: Sampler, limit: int, stop: Collection[int]) -> Iterator[int]:
    """Up to `limit` tokens of a one-row decoder that has read something; the last one is not read back."""
    for count in range(limit):
        ids_B = decoder.sample(sampler)
        token = int(ids_B[0])
        if token in stop:
            return
        yield token
        if count + 1 < limit:
            decoder.step(ids_B)


def generate(
    model: CausalModel,
    ids: Sequence[int],
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
    **sampling: Unpack[SamplingOptions],
) -> list[int]:
    """Generate after a prompt: the token ids that `stream` yields, as a list.

    Args:
        model: The model.
        ids: The prompt's token ids, at least one.
        max_new_tokens: Largest number of new tokens.
        stop, banned, **sampling: As in `stream`.

    Returns:
        The new token ids.

    Raises:
        UserError: As in `stream`.
    """
    return list(stream(model, ids, max_new_tokens, stop=stop, banned=banned, **sampling))


def generate_batch(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
    finished: Callable[[list[int]], bool] | None = None,
    **sampling: Unpack[SamplingOptions],
) -> list[list[int]]:
    """Generate after several prompts at once.

    Args:
        model: The model.
        prompts: Token ids of each prompt, at least one each. Shorter prompts are padded on the left, where no
            layer sees the padding.
        max_new_tokens: Largest number of new tokens of a row.
        stop: A row that chooses one of these tokens ends before it; the other rows continue.
        banned: As in `stream`.
        finished: Called with a row's new tokens after each of them; true ends the row, which keeps them.
        **sampling: As in `stream`; row i uses seed + i.

    Returns:
        The new token ids of each row. Row i equals `generate(model, prompts[i], seed=seed + i)`.

    Raises:
        UserError: As in `stream`.
    """
    vocab = model.config.vocab
    banned = check_special_ids("banned", banned, vocab)
    sampler = Sampler(Sampling(**sampling, banned=banned), rows=len(prompts))
    rows = [check_ids(ids, vocab) for ids in prompts]
    for row, ids in enumerate(rows):
        sampler.note(row, ids)
    max_new_tokens = whole_number("the number of new tokens", max_new_tokens)
    stop = frozenset(check_special_ids("stop", stop, vocab))
    new: list[list[int]] = [[] for _ in rows]
    if not rows or max_new_tokens == 0:
        return new
    require_state(model, max(map(len, rows)), max_new_tokens, len(rows))
    decoder = Decoder(model, len(rows))
    decoder.read(*left_padded(rows, decoder.device))
    running = set(range(len(rows)))
    for count in range(max_new_tokens):
        ids_B = decoder.sample(sampler)
        for row, token in enumerate(ids_B.tolist()):
            if row in running and token in stop:
                running.discard(row)
            elif row in running:
                new[row].append(token)
                if finished and finished(new[row]):
                    running.discard(row)
        if not running or count + 1 == max_new_tokens:
            break
        decoder.step(ids_B)
    return new


def left_padded(
    rows: Sequence[Sequence[int]], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor | None]:
    """Ids (B, L) and segments (B, L), -1 at padding and 0 elsewhere; None where all rows are equally long."""
    length = max(map(len, rows))
    ids_BL = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows], device=device)
    if all(len(row) == length for row in rows):
        return ids_BL, None
    return ids_BL, torch.tensor([[-1] * (length - len(row)) + [0] * len(row) for row in rows], device=device)


def check_prompt_fits(model: CausalModel, tokens: int) -> None:
    """Check by arithmetic that the state of a long prompt fits into memory.

    Args:
        model: The model.
        tokens: Tokens that are to be read, with those read before.

    Raises:
        UserError: It does not fit.
    """
    # Models of other libraries do not count their state.
    state_bytes: Any = getattr(model, "state_bytes", None)
    if tokens <= READ_AT_ONCE or state_bytes is None:
        return
    needed, free = state_bytes(tokens), free_memory(model.device)
    if needed > free:
        raise UserError(
            f"the prompt has {tokens:,} tokens, and the model's state of them needs {needed / 1e9:,.1f} GB; "
            f"{free / 1e9:,.1f} GB of memory are available; shorten the prompt"
        )
