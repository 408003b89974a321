"""Fitting keys and gate to a frozen model: once with the facts of a text in memory, more often with foreign
ones.

Documents of the built-in corpus, drawn with a seed of their own, stand in for what a user may teach. Some are
taught. Then are read: the taught ones from their beginning (the state returns exactly), the taught ones
behind the beginning of another document (it returns nearly), and documents that were not taught, which are
most of what a memory meets. The gate that predicts all of these best is kept. It needs no text of the user's
and no training run's data, so that a memory can be made wherever the model is.

Legend: R rows of equal length, L tokens, D hidden.
"""

from typing import Any

import torch
from torch import Tensor, nn

from braingpt.device.eval_mode import eval_mode
from braingpt.episodic.gate import READ, Gate, fit
from braingpt.episodic.keys import KeyMaker, watching
from braingpt.episodic.memory import episodes
from braingpt.episodic.store import Store
from braingpt.model.sequence_layout import Layout

# of the built-in corpus; prepared data have seed 0
SEED = 1_000
# documents: the memory is irrelevant to three of four that are read anew
TAUGHT, FOREIGN = 48, 144
# of a document, and of the other one before it
TOKENS, BEFORE = 32, 12
# read at once
ROWS = 16


def calibrate(model: nn.Module, tokenizer: Any) -> tuple[KeyMaker, Gate]:
    """Keys and gate for this model. The same model gives the same result."""
    ids_RL = torch.tensor(_rows(tokenizer, TAUGHT + FOREIGN), device=next(model.parameters()).device)
    taught_RL, foreign_RL = ids_RL.split([TAUGHT, FOREIGN])
    shifted_RL = torch.cat([foreign_RL[:TAUGHT, :BEFORE], taught_RL[:, 1:]], 1)
    maker = KeyMaker.of(
        torch.cat([_read(model, part)[1].flatten(0, 1) for part in foreign_RL[: 2 * TAUGHT].split(ROWS)])
    )
    store = Store(model.config.hidden)
    for number, row in enumerate(taught_RL.tolist()):
        store.write(str(number), *episodes(model, maker, row))
    examples = []
    for rows_RL, start in ((taught_RL, 0), (foreign_RL, 0), (shifted_RL, BEFORE)):
        for part_RL in rows_RL.split(ROWS):
            logits_RLV, states_RLD = _read(model, part_RL)
            keys_RLD, _ = maker.keys(
                states_RLD, maker.past(len(part_RL), part_RL.device), Layout.of(part_RL, None, None)
            )
            asked = (t[:, start:-1].flatten(0, 1) for t in (logits_RLV, keys_RLD))
            log_p_QV, keys_QD = torch.log_softmax(next(asked).float(), 1), next(asked)
            target_Q = part_RL[:, start + 1 :].flatten()
            examples.append(
                (*store.read(keys_QD, READ), target_Q, log_p_QV.gather(1, target_Q[:, None]).squeeze(1).exp())
            )
    return maker, fit(examples)


def _rows(tokenizer: Any, count: int) -> list[list[int]]:
    """The first tokens of `count` documents, marker first."""
    from braingpt.data.sample import documents

    rows = []
    for document in documents(SEED):
        ids = tokenizer.encode(document.text, language=document.language)[:TOKENS]
        if len(ids) == TOKENS:
            rows.append(ids)
        if len(rows) == count:
            break
    return rows


def _read(model: nn.Module, ids_RL: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, L, V) and states (R, L, D)."""
    with eval_mode(model), watching(model) as seen:
        return model(ids_RL).logits, seen[0]
