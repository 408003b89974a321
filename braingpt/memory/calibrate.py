"""Fitting whitening and gate to a frozen model: once with the facts of a text in memory, more often with foreign ones.

Documents of the built-in corpus, drawn with a seed of their own, stand in for what a user may teach. Some are taught. Then are read: the taught ones from
their beginning (the state returns exactly), the taught ones behind the beginning of another document (it returns nearly), and documents that were
not taught, which are most of what a memory meets. The gate that predicts all of these best is kept. It needs no text of the user's and no training run's
data, so that a memory can be made wherever the model is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from braingpt.inference.engine import evaluating
from braingpt.memory.gate import READ, Gate, fit
from braingpt.memory.states import Whitening, watching
from braingpt.memory.store import Store

SEED = 1_000  # of the built-in corpus; prepared data have seed 0
TAUGHT, FOREIGN = 48, 144  # documents: the memory is irrelevant to three of four that are read anew
TOKENS, BEFORE = 32, 12  # of a document, and of the other one before it


def calibrate(model: nn.Module, tokenizer: Any) -> tuple[Whitening, Gate]:
    """Whitening and gate for this model. The same model gives the same result."""
    from braingpt.memory.episodic import EpisodicMemory

    rows = _rows(tokenizer, TAUGHT + FOREIGN + TAUGHT)
    taught, foreign, others = rows[:TAUGHT], rows[TAUGHT : TAUGHT + FOREIGN], rows[TAUGHT + FOREIGN :]
    read = [_reading(model, row) for row in foreign]
    whitening = Whitening.of(torch.cat([states for _, states, _ in read]))
    memory = EpisodicMemory("", whitening, Gate.shut(), Store(model.config.hidden), {})
    for number, row in enumerate(taught):
        memory.store.write(str(number), *memory.episodes(model, row))
    read += [_reading(model, row) for row in taught]
    read += [_reading(model, other[:BEFORE] + row[1:], BEFORE) for other, row in zip(others, taught, strict=True)]
    examples = []
    for log_p_QV, states_QD, targets_Q in read:
        examples.append((log_p_QV, *memory.store.read(whitening.keys(states_QD), READ), targets_Q))
    return whitening, fit(examples)


def _rows(tokenizer: Any, count: int) -> list[list[int]]:
    """The first tokens of `count` documents, marker first."""
    from braingpt.data.sample import documents

    rows = []
    for document in documents(SEED):
        ids = tokenizer.encode(document.text, language=document.language)[:TOKENS]
        if len(ids) == TOKENS:
            rows.append(ids)
        if len(rows) == count:
            return rows
    raise AssertionError("the built-in corpus is larger than that")


def _reading(model: nn.Module, ids: list[int], start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, key states and the tokens that come, for the places from `start` on that have a next token."""
    with evaluating(model), watching(model) as seen:
        logits_LV = model(torch.tensor([ids], device=next(model.parameters()).device)).logits[0]
    places = slice(start, len(ids) - 1)
    return torch.log_softmax(logits_LV.float(), 1)[places], seen[0][0][places], torch.tensor(ids[1:])[places].to(logits_LV.device)
