"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 4): which value was bound to this
key, earlier in the same sequence?

    k1 v1 k2 v2 ... | . . k7 . . . k2 . k1 . . .      predict each key's value in the second part

Keys, values and the tokens between the queries come from three equal ranges of the vocabulary. Zoology draws
the tokens between from all 8,192 entries; in a vocabulary of a few hundred, such tokens would bind keys
again. The distances of queries follow a power law, as in Zoology. A batch depends on its arguments alone.

Legend: B rows, L tokens, P pairs, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from braingpt.device.eval_mode import eval_mode
from braingpt.errors import UserError
from braingpt.evaluation.uncertainty import Figure
from braingpt.kernels.cross_entropy import IGNORED
from braingpt.model.lm import LanguageModel

# Pairs and tokens of a row.
LEVELS = ((4, 32), (8, 64), (16, 128))
# A seed that no training should use.
UNSEEN = 10**6
# Exponent of the law of distances: the smaller, the more queries are near the pairs.
POWER = 0.01


def recall_batch(
    seed: int, step: int, rows: int, length: int, pairs: int, vocab: int
) -> tuple[Tensor, Tensor]:
    """Draw a batch of sequences.

    Args:
        seed: Seed of the draw, together with `step`.
        step: Number of the batch.
        rows: Rows B.
        length: Tokens L of a row.
        pairs: Pairs P of a row.
        vocab: Entries V of the vocabulary.

    Returns:
        Ids and targets, (B, L) each; targets are IGNORED (-100) except at the P queries of a row.

    Raises:
        UserError: The pairs and their queries do not fit the length, or the keys a third of the vocabulary.
    """
    third, slots = vocab // 3, (length - 2 * pairs) // 2
    if not 1 <= pairs <= slots:
        raise UserError(
            f"{pairs} pairs and as many queries need sequences of at least {4 * pairs} tokens, not {length}"
        )
    if pairs > third:
        raise UserError(f"{pairs} keys do not fit a third of a vocabulary of {vocab}")
    draw = np.random.default_rng([seed, step, length, pairs])
    keys_BP = draw.random((rows, third)).argsort(1)[:, :pairs]
    values_BP = third + draw.random((rows, third)).argsort(1)[:, :pairs]
    weight = np.arange(1, slots + 1) ** (POWER - 1.0)
    # The P largest are a draw by weight without replacement (Gumbel-top-k).
    gumbel = np.log(weight) - np.log(-np.log(draw.random((rows, slots))))
    places_BP = 2 * pairs + 2 * draw.permuted((-gumbel).argsort(1)[:, :pairs], axis=1)
    ids_BL = draw.integers(2 * third, 3 * third, (rows, length))
    ids_BL[:, 0 : 2 * pairs : 2], ids_BL[:, 1 : 2 * pairs : 2] = keys_BP, values_BP
    np.put_along_axis(ids_BL, places_BP, keys_BP, 1)
    targets_BL = np.full((rows, length), IGNORED)
    np.put_along_axis(targets_BL, places_BP, values_BP, 1)
    return torch.from_numpy(ids_BL), torch.from_numpy(targets_BL)


def recall_accuracy(
    model: LanguageModel, length: int, pairs: int, *, rows: int = 16, batches: int = 4, seed: int = UNSEEN
) -> float:
    """Share of queries at which the likeliest of all V tokens is the value."""
    exact, _ = recall_figures(model, length, pairs, rows=rows, batches=batches, seed=seed)
    return float(exact.amount.sum()) / float(exact.weight.sum())


def recall_figures(
    model: LanguageModel, length: int, pairs: int, *, rows: int = 16, batches: int = 4, seed: int = UNSEEN
) -> tuple[Figure, Figure]:
    """Shares of queries at which the value is the likeliest token: of all V, and of the P bound in the row.

    The second share has a chance of one in P, so it shows first signs of recall in a model trained on text
    alone.

    Args:
        model: The model.
        length: Tokens of a row.
        pairs: Pairs bound in a row.
        rows: Rows of a batch.
        batches: Batches.
        seed: Seed of the draw.

    Returns:
        Both accuracies; their units are rows.
    """
    device, exact, bound = model.device, [], []
    with eval_mode(model):
        for step in range(batches):
            ids_BL, targets_BL = (
                t.to(device) for t in recall_batch(seed, step, rows, length, pairs, model.config.vocab)
            )
            asked_BL = targets_BL >= 0
            value_BP = targets_BL[asked_BL].view(rows, pairs)
            logits_BPV = model(ids_BL, at_BL=asked_BL).logits.unflatten(0, (rows, pairs))
            offered_BPP = logits_BPV.gather(2, value_BP[:, None].expand(-1, pairs, -1))
            exact += (logits_BPV.argmax(-1) == value_BP).sum(1).tolist()
            bound += (offered_BPP.argmax(-1) == torch.arange(pairs, device=device)).sum(1).tolist()
    weight, task = np.full(len(exact), float(pairs)), f"recall {pairs} in {length}"
    about = {"pairs": pairs, "length": length}
    return (
        Figure(
            task, "-", "accuracy", np.array(exact, float), weight, chance=1 / model.config.vocab, about=about
        ),
        Figure(task, "-", "among bound", np.array(bound, float), weight, chance=1 / pairs, about=about),
    )
