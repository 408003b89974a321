"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 4): what was bound to this key, earlier in the same sequence?

    k1 v1 k2 v2 ... | . . k7 . . . k2 . k1 . . .        at each key of the second part its value is to be predicted

Keys, values and the tokens between the queries come from three equal ranges of the vocabulary. Zoology draws the latter from all 8,192 entries; in a vocabulary
of a few hundred those would bind keys anew. Queries stand at distances that follow a power law, as theirs. A batch is a function of its arguments alone.

Legend: B rows, L tokens, P pairs, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from braingpt.errors import UserError
from braingpt.inference.engine import evaluating

POWER = 0.01  # of the law of distances: the smaller, the more queries stand near the pairs


def recall_batch(seed: int, step: int, rows: int, length: int, pairs: int, vocab: int) -> tuple[Tensor, Tensor]:
    """Ids and targets, (B, L) each; targets are -100 but at the P queries of a row.

    Raises UserError when the pairs and their queries do not fit the length, or the keys not a third of the vocabulary.
    """
    third, slots = vocab // 3, (length - 2 * pairs) // 2
    if not 1 <= pairs <= slots:
        raise UserError(f"{pairs} pairs and as many queries need sequences of at least {4 * pairs} tokens, not {length}")
    if pairs > third:
        raise UserError(f"{pairs} keys do not fit a third of a vocabulary of {vocab}")
    draw = np.random.default_rng([seed, step, length, pairs])
    keys_BP = draw.random((rows, third)).argsort(1)[:, :pairs]
    values_BP = third + draw.random((rows, third)).argsort(1)[:, :pairs]
    weight = np.arange(1, slots + 1) ** (POWER - 1.0)
    gumbel = np.log(weight) - np.log(-np.log(draw.random((rows, slots))))  # the P largest are drawn by weight, without replacement
    places_BP = 2 * pairs + 2 * draw.permuted((-gumbel).argsort(1)[:, :pairs], axis=1)
    ids_BL = draw.integers(2 * third, 3 * third, (rows, length))
    ids_BL[:, 0 : 2 * pairs : 2], ids_BL[:, 1 : 2 * pairs : 2] = keys_BP, values_BP
    np.put_along_axis(ids_BL, places_BP, keys_BP, 1)
    targets_BL = np.full((rows, length), -100)
    np.put_along_axis(targets_BL, places_BP, values_BP, 1)
    return torch.from_numpy(ids_BL), torch.from_numpy(targets_BL)


def recall_accuracy(model: torch.nn.Module, length: int, pairs: int, *, rows: int = 16, batches: int = 4, seed: int = 10**6) -> float:
    """Share of queries at which the likeliest of all V tokens is the value. The default seed is one that no training should use."""
    device, right, asked = next(model.parameters()).device, 0, 0
    with evaluating(model):
        for step in range(batches):
            ids_BL, targets_BL = (t.to(device) for t in recall_batch(seed, step, rows, length, pairs, model.config.vocab))
            hit_BL = model(ids_BL).logits.argmax(-1) == targets_BL
            right, asked = right + int(hit_BL.sum()), asked + int((targets_BL >= 0).sum())
    return right / asked
