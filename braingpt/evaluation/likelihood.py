"""The likelihood of continuations, by which every task that offers answers is measured.

Pairs are sorted by length and read in batches of similar lengths, padded on the right, which no token before
the padding sees.

Legend: B rows, L tokens, P judged tokens of a row, N judged tokens of all rows, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from braingpt.device.eval_mode import eval_mode
from braingpt.model.lm import LanguageModel
from braingpt.tokenizer import Tokenizer

# Tokens of a batch. If all of them were judged, their logits would be 135 MB at 16,448 entries.
BATCH_TOKENS = 2_048


class Pair(NamedTuple):
    """Tokens given, the first of which is a marker, and tokens to be judged; neither is empty."""

    context: list[int]
    continuation: list[int]


class Likelihood(NamedTuple):
    """How likely one pair's continuation is."""

    # Number of the pair.
    index: int
    # Log-probability of the continuation.
    nats: float
    # Whether each token of the continuation was the likeliest.
    greedy: bool
    # Tokens of the context that did not fit.
    cut: int


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, language: str | None = None) -> Pair:
    """Encode context and continuation as one text, as the model was trained to read it, and split the tokens.

    Spaces at the end of the context belong to the continuation, where the tokenizer puts them.

    Args:
        tokenizer: The model's vocabulary.
        context: The text given.
        continuation: The text to be judged.
        language: Language of the marker that comes first; None: detected.

    Returns:
        The tokens of both, the marker first.
    """
    kept = context.rstrip(" ")
    continuation, context = context[len(kept) :] + continuation, kept
    start = (
        tokenizer.encode("", language=language)
        if language
        else tokenizer.encode(context or continuation, language="auto")[:1]
    )
    # No language was recognised.
    if not start or start[0] not in tokenizer.markers.values():
        start = [tokenizer.eot]
    given, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    judged = whole[len(given) :]
    # A token reaches over the border: encode each part by itself.
    if whole[: len(given)] != given or not judged:
        judged = tokenizer.encode(continuation)
    return Pair(start + given, judged)


def likelihoods(
    model: LanguageModel, pairs: Sequence[Pair], longest: int, tokens: int = BATCH_TOKENS
) -> Iterator[Likelihood]:
    """How likely each pair's continuation is, the longest pairs first.

    Pairs that read the same tokens, such as a question's answers of one token each, are read once.

    Args:
        model: The model that judges.
        pairs: Contexts and continuations.
        longest: Tokens that the model reads at once, at most. A longer pair loses the beginning of its
            context, but not the marker.
        tokens: Tokens of a batch, about.

    Yields:
        A likelihood for each pair, as batches are done.
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
            # The head is most of a small model's work, so only judged tokens have logits.
            logits_NV = model(ids_BL.to(model.device), at_BL=at_BL.to(model.device)).logits
            for ids, logits_PV in zip(batch, logits_NV.split(at_BL.sum(1).tolist()), strict=True):
                for index in readers[ids]:
                    yield Likelihood(index, *_judged(logits_PV, pairs[index].continuation), cut[index])


def _fitted(pair: Pair, longest: int) -> tuple[tuple[int, ...], int]:
    """Tokens that the model reads (the last one is only predicted), and how many tokens are cut."""
    ids = (*pair.context, *pair.continuation)[:-1]
    cut = max(0, len(ids) - longest)
    return (ids if not cut else (ids[0], *ids[cut + 1 :])), cut


def _padded(batch: list[tuple[int, ...]], judged: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L), and where the last `judged` tokens of each row (or all it has) are predicted."""
    ids_BL = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.int64)
    at_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    for row, (ids, last) in enumerate(zip(batch, judged, strict=True)):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        at_BL[row, max(0, len(ids) - last) : len(ids)] = True
    return ids_BL, at_BL


def _judged(logits_PV: torch.Tensor, continuation: list[int]) -> tuple[float, bool]:
    """Log-probability of the last tokens, and whether they are the likeliest ones."""
    # All tokens, except where the continuation alone is longer than the model may read.
    judged = continuation[-len(logits_PV) :]
    log_PV = logits_PV[len(logits_PV) - len(judged) :].float().log_softmax(-1)
    target_P = torch.tensor(judged, device=log_PV.device)
    nats = log_PV.gather(1, target_P[:, None]).double().sum()
    return float(nats), bool((log_PV.argmax(-1) == target_P).all())
