"""How likely a model finds a continuation: the one question behind every task that offers answers to choose
from.

Pairs are sorted by length and read in batches of like ones, padded on the right, which no token before it
sees.

Legend: B rows, L tokens, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from braingpt.device.eval_mode import eval_mode

# of a batch: were all of them judged, their logits would be 135 MB at 16,448 entries
TOKENS = 2_048


class Pair(NamedTuple):
    """Tokens given, the first of them a marker, and tokens to be judged; neither is empty."""

    context: list[int]
    continuation: list[int]


class Likelihood(NamedTuple):
    """index: of the pair.  nats: log-probability of the continuation.

    greedy: whether each of its tokens was the likeliest.  cut: tokens of the context that did not fit.
    """

    index: int
    nats: float
    greedy: bool
    cut: int


def encode_pair(tokenizer: Any, context: str, continuation: str, language: str | None = None) -> Pair:
    """Both as one text, as the model was trained to read it, behind the marker of `language` (None:
    detected), and split again.

    Spaces at the end of the context go with the continuation, where the tokenizer puts them.
    """
    kept = context.rstrip(" ")
    continuation, context = context[len(kept) :] + continuation, kept
    start = (
        tokenizer.encode("", language=language)
        if language
        else tokenizer.encode(context or continuation, language="auto")[:1]
    )
    # no language was recognised
    if not start or start[0] not in tokenizer.markers.values():
        start = [tokenizer.eot]
    given, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    judged = whole[len(given) :]
    # a token reaches over the border: each part for itself
    if whole[: len(given)] != given or not judged:
        judged = tokenizer.encode(continuation)
    return Pair(start + given, judged)


def likelihoods(
    model: nn.Module, pairs: Sequence[Pair], longest: int, tokens: int = TOKENS
) -> Iterator[Likelihood]:
    """Each pair's, longest first, as batches of about `tokens` tokens are done.

    The model reads at most `longest` tokens at once: of a longer pair the beginning is left out, but for the
    marker. Pairs that read the same, like a question's answers of one token each, are read once.
    """
    cut, readers = [], defaultdict(list)
    for index, pair in enumerate(pairs):
        ids, left_out = _fitted(pair, longest)
        cut.append(left_out)
        readers[ids].append(index)
    order, start = sorted(readers, key=len, reverse=True), 0
    with eval_mode(model):
        while start < len(order):
            batch = order[start : start + max(1, tokens // len(order[start]))]
            start += len(batch)
            judged = [max(len(pairs[index].continuation) for index in readers[ids]) for ids in batch]
            ids_BL, at_BL = _padded(batch, judged)
            # the head is most of a small model's work
            logits_NV = model(ids_BL.to(model.device), at_BL=at_BL.to(model.device)).logits
            for ids, logits_PV in zip(batch, logits_NV.split(at_BL.sum(1).tolist()), strict=True):
                for index in readers[ids]:
                    yield Likelihood(index, *_judged(logits_PV, pairs[index].continuation), cut[index])


def _fitted(pair: Pair, longest: int) -> tuple[tuple[int, ...], int]:
    """What the model reads, and how many tokens were left out.

    The last token is only predicted, never read.
    """
    ids = (*pair.context, *pair.continuation)[:-1]
    cut = max(0, len(ids) - longest)
    return (ids if not cut else (ids[0], *ids[cut + 1 :])), cut


def _padded(batch: list[tuple[int, ...]], judged: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L), and where the last `judged` tokens of each row are predicted, as far as it has so many."""
    ids_BL = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.int64)
    at_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    for row, (ids, last) in enumerate(zip(batch, judged, strict=True)):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        at_BL[row, max(0, len(ids) - last) : len(ids)] = True
    return ids_BL, at_BL


def _judged(logits_PV: torch.Tensor, continuation: list[int]) -> tuple[float, bool]:
    """Log-probability of the last tokens, and whether they are the likeliest ones."""
    # all of them, save where they alone are longer than the model may read
    judged = continuation[-len(logits_PV) :]
    log_PV = logits_PV[len(logits_PV) - len(judged) :].float().log_softmax(-1)
    target_P = torch.tensor(judged, device=log_PV.device)
    return float(log_PV.gather(1, target_P[:, None]).double().sum()), bool(
        (log_PV.argmax(-1) == target_P).all()
    )
