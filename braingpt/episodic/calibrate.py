"""Fitting keys and gate to a frozen model, on texts of which few are in memory.

Documents of the built-in corpus, drawn with a seed of their own, represent the texts that a user may teach.
Some are taught. Three kinds of text are then read: the taught documents from their beginning (the state
returns exactly), the taught documents after the beginning of another one (it nearly returns), and documents
that were not taught, which are most of what a memory meets. The gate that predicts all of these best is kept.
Neither a text of the user nor the training data is needed, so a memory can be made wherever the model is.

Legend: R rows of equal length, L tokens, D hidden, V vocabulary, Q positions.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from braingpt.data.sample import documents
from braingpt.device.eval_mode import eval_mode
from braingpt.episodic.gate import READ, Gate, fit_gate
from braingpt.episodic.keys import KeyMaker, capture_states, surprising_entries
from braingpt.episodic.store import Store
from braingpt.model.lm import LanguageModel
from braingpt.model.sequence_layout import Layout

if TYPE_CHECKING:
    from braingpt.tokenizer import Tokenizer

# Seed of the documents of the built-in corpus; prepared data have seed 0.
SEED = 1_000
# Documents taught, and documents for which the memory is irrelevant.
TAUGHT, FOREIGN = 48, 144
# Tokens of a document, and of the other document before a shifted one.
TOKENS, PREFIX = 32, 12
# Documents read at a time.
ROWS = 16


def calibrate(model: LanguageModel, tokenizer: "Tokenizer") -> tuple[KeyMaker, Gate]:
    """Fit keys and gate to a model; the same model gives the same result.

    Args:
        model: The frozen model.
        tokenizer: The model's tokenizer.

    Returns:
        What turns states into keys, and the gate.
    """
    ids_RL = torch.tensor(_rows(tokenizer, TAUGHT + FOREIGN), device=next(model.parameters()).device)
    taught_RL, foreign_RL = ids_RL.split([TAUGHT, FOREIGN])
    shifted_RL = torch.cat([foreign_RL[:TAUGHT, :PREFIX], taught_RL[:, 1:]], 1)
    maker = KeyMaker.of(
        torch.cat([_read(model, part)[1].flatten(0, 1) for part in foreign_RL[: 2 * TAUGHT].split(ROWS)])
    )
    store = Store(model.config.hidden)
    for number, row in enumerate(taught_RL.tolist()):
        store.write(str(number), *surprising_entries(model, maker, row))
    examples = []
    for rows_RL, start in ((taught_RL, 0), (foreign_RL, 0), (shifted_RL, PREFIX)):
        for part_RL in rows_RL.split(ROWS):
            logits_RLV, states_RLD = _read(model, part_RL)
            keys_RLD, _ = maker.keys(
                states_RLD, maker.past(len(part_RL), part_RL.device), Layout.of(part_RL, None, None)
            )
            logits_QV, keys_QD = (t[:, start:-1].flatten(0, 1) for t in (logits_RLV, keys_RLD))
            target_Q = part_RL[:, start + 1 :].flatten()
            log_p_QV = torch.log_softmax(logits_QV.float(), 1)
            p_Q = log_p_QV.gather(1, target_Q[:, None]).squeeze(1).exp()
            examples.append((*store.read(keys_QD, READ), target_Q, p_Q))
    return maker, fit_gate(examples)


def _rows(tokenizer: "Tokenizer", count: int) -> list[list[int]]:
    """The first tokens of `count` documents, marker first."""
    rows = []
    for document in documents(SEED):
        ids = tokenizer.encode(document.text, language=document.language)[:TOKENS]
        if len(ids) == TOKENS:
            rows.append(ids)
        if len(rows) == count:
            break
    return rows


def _read(model: LanguageModel, ids_RL: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, L, V) and states (R, L, D)."""
    with eval_mode(model), capture_states(model) as seen:
        return model(ids_RL).logits, seen[0]
