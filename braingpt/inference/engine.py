"""Generation: read the prompt once, then one step a token. Nothing of the prefix is ever computed twice.

    generate(model, ids, max_new_tokens=50)          # list of new ids
    stream(model, ids, max_new_tokens=50)            # the same ids, one at a time
    generate_batch(model, [a, b], max_new_tokens=50) # prompts of different lengths; row i as if it were alone
    with seed + i

`Decoder` is the piece underneath: a model, its state, and the logits of what comes next. Chat keeps one alive
between turns.

Shapes: B rows, L positions, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.inference.sampling import Sampler, Sampling, check_ids


class Decoder:
    """A model in the middle of its text.

    `logits_BV` speaks of the token that comes next; None before anything was read.
    """

    def __init__(self, model: nn.Module, rows: int = 1) -> None:
        self.model = model
        self.device = model.device
        self.state = model.new_state(rows)
        self.logits_BV: Tensor | None = None

    def read(self, ids_BL: Tensor, segments_BL: Tensor | None = None) -> None:
        """Take in tokens (B, L >= 1) after what was read before.

        Padding (segment -1) may only stand on the left.
        """
        with eval_mode(self.model):
            out = self.model(ids_BL.to(self.device), state=self.state, segments_BL=segments_BL, last=True)
            self.state = out.state
            self.logits_BV = out.logits[:, -1]

    def depth(self) -> float | None:
        """Mean share of the layers that the tokens read so far went through; None before anything was read."""
        return self.state.depth()

    def step(self, ids_B: Tensor) -> None:
        """Take in one token a row."""
        with eval_mode(self.model):
            self.logits_BV = self.model.step(ids_B, self.state)


def stream(
    model: nn.Module,
    ids: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
    decoder: Decoder | None = None,
) -> Iterator[int]:
    """New tokens one at a time, at most `max_new_tokens`, ending before a token of `stop`, which is not
    yielded.

    `decoder`: one of the model's with a single row, to go on from what it has read and to look at afterwards;
        a fresh one by default. Raises UserError for an empty prompt, an id outside the vocabulary, or a
        setting out of range - at the call, not at the first token.
    """
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed, tuple(banned)))
    ids = check_ids(ids, model.config.vocab)
    _check_length(max_new_tokens)
    return _stream(decoder or Decoder(model), ids, max_new_tokens, sampler, frozenset(stop))


def _stream(
    decoder: Decoder, ids: list[int], max_new_tokens: int, sampler: Sampler, stop: frozenset[int]
) -> Iterator[int]:
    if max_new_tokens == 0:
        return
    decoder.read(torch.tensor([ids]))
    yield from draw(decoder, sampler, max_new_tokens, stop)


def draw(decoder: Decoder, sampler: Sampler, limit: int, stop: Collection[int]) -> Iterator[int]:
    """Up to `limit` tokens from a one-row decoder that has read something.

    The last token yielded is not read back into the state.
    """
    for count in range(limit):
        with torch.inference_mode():
            ids_B = sampler(decoder.logits_BV)
        token = int(ids_B[0])
        if token in stop:
            return
        yield token
        if count + 1 < limit:
            decoder.step(ids_B)


def generate(
    model: nn.Module,
    ids: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
) -> list[int]:
    """The new tokens after `ids`, as `stream` yields them."""
    settings = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": stop,
        "banned": banned,
    }
    return list(stream(model, ids, max_new_tokens, **settings))


def generate_batch(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Collection[int] = (),
    banned: Collection[int] = (),
    finished: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """New tokens for several prompts at once; shorter prompts are padded on the left, where no layer sees the
    padding.

    Row i equals `generate(model, prompts[i], seed=seed + i)`. A row that met a token of `stop` is done; the
    others go on. So is a row of whose new tokens `finished` says so; they are kept.
    """
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed, tuple(banned)), rows=len(prompts))
    rows = [check_ids(ids, model.config.vocab) for ids in prompts]
    _check_length(max_new_tokens)
    new: list[list[int]] = [[] for _ in rows]
    if not rows or max_new_tokens == 0:
        return new
    decoder = Decoder(model, len(rows))
    decoder.read(*left_padded(rows, decoder.device))
    running = set(range(len(rows)))
    for count in range(max_new_tokens):
        with torch.inference_mode():
            ids_B = sampler(decoder.logits_BV)
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
    """Ids (B, L) and segments (B, L): -1 where padded, 0 elsewhere; segments None when all rows are equally
    long.
    """
    length = max(map(len, rows))
    ids_BL = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows], device=device)
    if all(len(row) == length for row in rows):
        return ids_BL, None
    return ids_BL, torch.tensor([[-1] * (length - len(row)) + [0] * len(row) for row in rows], device=device)


def _check_length(max_new_tokens: int) -> None:
    if max_new_tokens < 0:
        raise UserError(f"the number of new tokens must be at least 0, not {max_new_tokens}")
